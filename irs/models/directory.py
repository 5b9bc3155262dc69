"""A model as a directory: ``model.json``, ``weights.safetensors``, ``labels.txt``, perhaps ``wnids.txt`` and pictures."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import nn

from irs.errors import ModelError
from irs.imaging import Preprocess
from irs.models import architectures
from irs.models.files import DESCRIPTION, LABEL_LETTERS, LABELS, WEIGHTS, WNIDS, digests_of, is_label
from irs.models.model import Model

_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
#: A thousand labels are 20 KB; what is larger is no text of a model.
_MOST_TEXT_BYTES = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The fields of ``model.json``; others are ignored. ``sha256`` is of the weights, in hex."""

    name: str
    architecture: str
    preprocess: Preprocess = field(default_factory=Preprocess)
    temperature: float = Field(default=1.0, ge=0.01, le=100)
    sure_above: float = Field(default=0.5, ge=0, le=1)
    sha256: str = Field(pattern=r"^[0-9A-Fa-f]{64}$")
    license: str = ""
    source: str = ""


_adapter = TypeAdapter(Description)


def read_description(directory: Path) -> Description:
    """Return what ``model.json`` says.

    Raises:
        ModelError: the file is missing or broken.
    """
    try:
        return _adapter.validate_json(_read(directory, DESCRIPTION))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"{directory / DESCRIPTION} is broken: {where}: {first['msg']}.") from None


def read_labels(directory: Path) -> tuple[str, ...]:
    """Return the lines of ``labels.txt``.

    Raises:
        ModelError: the file is missing or broken.
    """
    return _lines(directory, LABELS)


def open_directory(directory: Path) -> Model:
    """Return the model in ``directory``; reads its weights once, to check them against ``model.json``.

    Raises:
        ModelError: a file is missing or broken, or they do not belong together.
    """
    if not directory.is_dir():
        raise ModelError(f"There is no model directory {directory}: give one with {DESCRIPTION}, {WEIGHTS} and {LABELS}.")
    description = read_description(directory)
    labels = read_labels(directory)
    wnids = _lines(directory, WNIDS) if (directory / WNIDS).exists() else None
    if wnids is not None and len(wnids) != len(labels):
        raise ModelError(f"{directory}: {WNIDS} has {len(wnids)} lines and {LABELS} {len(labels)}: they must be equally many.")
    return Model(
        name=description.name,
        architecture=description.architecture,
        digest=_digest(directory, description.sha256),
        preprocess=description.preprocess,
        labels=labels,
        wnids=wnids,
        temperature=description.temperature,
        sure_above=description.sure_above,
        license=description.license,
        source=description.source,
        pictures=tuple(sorted(path for path in directory.iterdir() if path.suffix.lower() in _PICTURES)),
        build=lambda: _build(directory, description.architecture, len(labels), description.preprocess.crop),
    )


def _build(directory: Path, architecture: str, classes: int, side_px: int) -> nn.Module:
    from safetensors.torch import load_file

    net = architectures.build(architecture, classes, side_px=side_px)
    weights = directory / WEIGHTS
    try:
        state = OrderedDict(load_file(weights))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights} cannot be read ({error}): copy the model again.") from None
    # torch keeps the versions of the modules beside their tensors; safetensors does not: they are taken as today's.
    state._metadata = net.state_dict()._metadata  # type: ignore[attr-defined]
    return architectures.load(net, state, classes=classes, origin=str(weights))


def _digest(directory: Path, expected_sha256: str) -> str:
    try:
        sha256, digest = digests_of(directory)
    except OSError as error:
        raise ModelError(_unreadable(directory, WEIGHTS, error)) from None
    if sha256 != expected_sha256.lower():
        raise ModelError(
            f"{directory / WEIGHTS} is not the file that {DESCRIPTION} names (sha256 differs): copy the model again."
        )
    return f"sha256:{digest}"


def _read(directory: Path, name: str) -> bytes:
    try:
        with (directory / name).open("rb") as file:
            content = file.read(_MOST_TEXT_BYTES + 1)
    except OSError as error:
        raise ModelError(_unreadable(directory, name, error)) from None
    if len(content) > _MOST_TEXT_BYTES:
        raise ModelError(f"{directory / name} is larger than {_MOST_TEXT_BYTES // 2**20} MiB: it is no text of a model.")
    return content


def _lines(directory: Path, name: str) -> tuple[str, ...]:
    try:
        lines = tuple(_read(directory, name).decode().splitlines())
    except UnicodeDecodeError:
        raise ModelError(f"{directory / name} is no UTF-8 text: write one label a line.") from None
    if not lines or not all(line.strip() for line in lines):
        raise ModelError(f"{directory / name} is empty or has an empty line: write one label a line.")
    if odd := next((number for number, line in enumerate(lines, start=1) if not is_label(line)), 0):
        raise ModelError(
            f"Line {odd} of {directory / name} is none to read: write up to {LABEL_LETTERS} letters, no control characters."
        )
    return lines


def _unreadable(directory: Path, name: str, error: OSError) -> str:
    why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return f"{directory / name} {why}: a model directory holds {DESCRIPTION}, {WEIGHTS} and {LABELS}."
