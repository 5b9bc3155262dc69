"""A trained net as a model directory."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from irs.errors import SetupError
from irs.imaging import Preprocess
from irs.models.directory import open_directory
from irs.models.files import DESCRIPTION, LABELS, WEIGHTS, WNIDS, sha256_of
from irs.models.forward import Forward
from irs.models.hedging import hedging_report
from irs.models.model import Model
from irs.models.train.charts import draw_charts
from irs.models.train.folder import PictureFolder
from irs.models.train.judge import Judgement
from irs.models.train.options import Listener, TrainingOptions

MADE_BY = "irs train"
CARD = "README.md"
#: Below the folder: a picture beside model.json would be one to check the model with.
CHARTS = "charts"
_SPEED_BATCH = 8
_SPEED_S = 1.0
_SURE_ABOVE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A net with all that belongs to it.

    Attributes:
        held: figures of the pictures held back, which the temperature was fitted on.
        validation: figures of pictures of another folder, if there is one.
        recipe: what was done, line by line: (what, how).
        counts: pictures trained on and held back.
    """

    net: nn.Module
    architecture: str
    preprocess: Preprocess
    temperature: float
    held: Judgement
    validation: Judgement | None
    recipe: tuple[tuple[str, str], ...]
    counts: tuple[int, int]
    unreadable: int = 0
    license: str = ""
    source: str = ""

    @property
    def figures(self) -> Judgement:
        """The figures to be told: of pictures that no choice was made by, if there are any."""
        return self.validation or self.held


def check_out(out: Path) -> None:
    """Raise SetupError unless a model may be written to ``out``."""
    if not out.exists():
        return
    if not out.is_dir():
        raise SetupError(f"{out} is a file: name a folder for the model.")
    if not any(out.iterdir()):
        return
    try:
        is_ours = json.loads((out / DESCRIPTION).read_text()).get("made_by") == MADE_BY
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise SetupError(f"{out} holds files that irs train did not write: name another folder, or empty it.")


def store_weights(net: nn.Module) -> dict[str, torch.Tensor]:
    """Return the net's state as it is stored; ``net`` then holds just that.

    Matrices and convolutions go to half precision (0.1 points at most); vectors, batch norms with them, take no room.
    """
    stored = {
        name: (tensor.half() if tensor.ndim > 1 and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in net.state_dict().items()
    }
    if not all(torch.isfinite(tensor).all() for tensor in stored.values()):
        # Weights beyond 65,504 are rare, and known nets have none.
        stored = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    net.load_state_dict(stored)
    return {name: tensor.cpu() for name, tensor in stored.items()}


def recover_model(out: Path) -> None:
    """Put the model before back, where a process that replaced it was killed between two steps; drop it where it was replaced."""
    old = _old(out.absolute())
    if out.exists() and any(out.iterdir()):
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        with suppress(OSError):  # told by whoever writes there next
            old.rename(out)


def _old(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


def write_model(options: TrainingOptions, folder: PictureFolder, trained: Trained, listener: Listener) -> Path:
    """Write the model directory, in place of one that irs train wrote before; whole or not at all.

    Raises:
        SetupError: the folder holds something else, or the disk does not take it.
    """
    check_out(options.out)
    out = options.out.absolute()
    part, old = out.with_name(f".{out.name}.part"), _old(out)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _fill(part, options, folder, trained, listener)
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        # Killed before the next line, it leaves the model to recover_model.
        part.rename(out)
    except (SafetensorError, OSError) as error:
        raise SetupError(
            f"The model cannot be written to {out} ({error}): make room, then give the same command again."
        ) from None
    finally:
        recover_model(out)
        shutil.rmtree(part, ignore_errors=True)
    return out


def _fill(part: Path, options: TrainingOptions, folder: PictureFolder, trained: Trained, listener: Listener) -> None:
    from irs.models.train.card import write_card

    save_file(store_weights(trained.net), part / WEIGHTS)
    description = {
        "name": options.model_name,
        "architecture": trained.architecture,
        "preprocess": asdict(trained.preprocess),
        "temperature": trained.temperature,
        "sure_above": _SURE_ABOVE,
        "sha256": sha256_of(part / WEIGHTS),
        "license": options.license or trained.license,
        "source": options.source or trained.source,
        "made_by": MADE_BY,
        "accuracy": round(trained.figures.top1, 4),
    }
    _write(part / DESCRIPTION, json.dumps(description, indent=1, ensure_ascii=False) + "\n")
    # safetensors writes for its owner alone; a model is for whoever may read the folder.
    (part / WEIGHTS).chmod((part / DESCRIPTION).stat().st_mode)
    _write(part / LABELS, "".join(f"{label}\n" for label in folder.labels))
    if folder.wnids is not None:
        _write(part / WNIDS, "".join(f"{wnid}\n" for wnid in folder.wnids))
    # As a worker opens it, so that a bad one shows.
    model = open_directory(part)
    draw_charts(part / CHARTS, trained.figures, folder.labels, listener.say)
    report = hedging_report(trained.figures.probabilities, trained.figures.targets, model)
    card = write_card(options, folder, trained, measure_speed(model), report, (part / WEIGHTS).stat().st_size)
    _write(part / CARD, card)


def _write(file: Path, text: str) -> None:
    # Names of folders need not be UTF-8; the file is, whatever the locale.
    file.write_text(text, encoding="utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Speed:
    """Pictures a second by the forward pass alone, as it is served."""

    images_per_s: float
    precision: str
    device: str
    threads: int


def measure_speed(model: Model) -> Speed:
    """Return how fast the model is here."""
    forward = Forward(model, batch_size=_SPEED_BATCH)
    forward.warm()
    size, crop = forward.sizes[0], model.preprocess.crop
    pixels = np.zeros((size, crop, crop, 3), np.uint8)
    count, begun_s = 0, time.perf_counter()
    while (took_s := time.perf_counter() - begun_s) < _SPEED_S:
        forward.probabilities(pixels)
        count += size
    return Speed(count / took_s, forward.precision, forward.device, torch.get_num_threads())
