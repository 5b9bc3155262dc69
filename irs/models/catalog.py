"""Which models there are, as plain facts: for ``irs models list`` and ``irs models show``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irs.errors import ModelError
from irs.models import architectures, zoo
from irs.models.directory import DESCRIPTION, LABELS, WEIGHTS, open_directory, read_description
from irs.models.open import open_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model.

    Attributes:
        path: its directory, or the file of torchvision's weights once it was downloaded.
        size_bytes: of the weights, in the file.
        digest: None where it is not known without reading the weights.
        accuracy: share of ImageNet's validation pictures whose first label is right, as torchvision published it.
        problem: why it cannot be used, in one sentence.
    """

    name: str
    path: str | None = None
    architecture: str = ""
    classes: int = 0
    size_bytes: int = 0
    license: str = ""
    digest: str | None = None
    accuracy: float | None = None
    problem: str | None = None


def list_models(folders: Iterable[Path] = ()) -> list[Entry]:
    """Return the model directories in ``folders``, then torchvision's; builds and downloads nothing."""
    found = [path.parent for folder in folders for path in sorted(folder.glob(f"*/{DESCRIPTION}"))]
    listed = [_listed(path) for path in found]
    return listed + [_published(name, zoo.find_weights(name)) for name in architectures.architectures()]


def show_model(name_or_directory: str) -> Entry:
    """Return one model's facts, its digest with them; may download torchvision's weights.

    Raises:
        ModelError: as :func:`~irs.models.open_model`.
    """
    directory = Path(name_or_directory).expanduser()
    if (directory / DESCRIPTION).exists():
        return _listed(directory, digest=open_directory(directory).digest)
    model = open_model(name_or_directory)
    architecture, _, weights = model.name.partition("@")
    if weights == zoo.RANDOM:
        return Entry(name=model.name, architecture=architecture, classes=len(model.labels), digest=model.digest)
    return _published(model.name, zoo.find_weights(architecture, weights), digest=model.digest)


def _listed(directory: Path, *, digest: str | None = None) -> Entry:
    try:
        description = read_description(directory)
        return Entry(
            name=description.name,
            path=str(directory),
            architecture=description.architecture,
            classes=len((directory / LABELS).read_text().splitlines()),
            size_bytes=(directory / WEIGHTS).stat().st_size,
            license=description.license,
            digest=digest,
        )
    except (ModelError, OSError) as error:
        return Entry(name=directory.name, path=str(directory), problem=str(error))


def _published(name: str, weights: Any, *, digest: str | None = None) -> Entry:
    path = zoo.cached_path(weights)
    return Entry(
        name=name,
        path=str(path) if path.exists() else None,
        architecture=name.partition("@")[0],
        classes=len(weights.meta["categories"]),
        size_bytes=round(weights.meta["_file_size"] * 2**20),
        license=zoo.license_of(weights),
        digest=digest,
        accuracy=round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5),
    )
