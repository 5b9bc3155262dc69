"""What ``irs up --model auto`` means, and which models this package brings along. Needs no torch."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from irs.errors import ModelError
from irs.models.download import download, has_sha256

AUTO = "auto"
PRETRAINED, BUNDLED = "resnet18", "imagenet200"
#: Where torchvision has resnet18's weights; the name holds the first digits of their SHA-256.
WEIGHTS_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
_START = WEIGHTS_URL.rpartition("-")[2].removesuffix(".pth")
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
#: The longest that ``auto`` looks for weights, and the longest silence on the way.
WITHIN_S, SILENCE_S = 20.0, 5.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that ``auto`` stands for on this machine now, and why, as the end of a sentence."""

    model: str
    why: str


def bundled_models() -> list[Path]:
    """Return the directories of the models that this package brings along."""
    return sorted(path.parent for path in BUNDLED_FOLDER.glob("*/model.json"))


def find_bundled(name: str) -> Path | None:
    """Return the directory of a bundled model, None if this package brings none of that name."""
    # Compared, not joined: a name may be a path.
    return next((path for path in bundled_models() if path.name == name), None)


def weights_path() -> Path:
    """Return where torch hub keeps resnet18's weights, there or not."""
    base = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(base).expanduser() / "hub" / "checkpoints" / WEIGHTS_URL.rpartition("/")[2]


def has_pretrained() -> bool:
    """Whether resnet18's weights are here, and whole."""
    return has_sha256(weights_path(), _START)


def choose(*, url: str = WEIGHTS_URL, within_s: float = WITHIN_S, silence_s: float = SILENCE_S) -> Choice:
    """Return resnet18 where its weights are here or come at once, else the bundled model.

    Blocks for ``within_s`` at most, without a network mostly not at all.

    Raises:
        ModelError: neither can be had.
    """
    path = weights_path()
    if has_pretrained():
        return Choice(PRETRAINED, f"torchvision's weights are in {path.parent}")
    began_s = time.monotonic()
    why_not = _find_obstacle(url, path, within_s, silence_s)
    if why_not is None:
        return Choice(PRETRAINED, f"torchvision's weights came within {time.monotonic() - began_s:.0f} s")
    if find_bundled(BUNDLED):
        return Choice(BUNDLED, f"it comes with irs, and torchvision's {PRETRAINED} cannot be had ({why_not})")
    raise ModelError(
        f"No model can be chosen: torchvision's {PRETRAINED} cannot be had ({why_not}), and {BUNDLED} does not come with this"
        f" install: name a model directory by --model, or put the weights at {path}."
    )


def _find_obstacle(url: str, path: Path, within_s: float, silence_s: float) -> str | None:
    """Fetch the weights; return why that failed, or None."""
    said: list[str | None] = []

    def fetch() -> None:
        try:
            download(url, path, sha256_start=_START, within_s=within_s, silence_s=silence_s)
            said.append(None)
        except (OSError, ValueError) as error:
            said.append(str(error.reason if type(error) is URLError else error))

    # In a thread: a name server that does not answer is waited for without regard to any time-out.
    thread = threading.Thread(target=fetch, name="irs-weights", daemon=True)
    thread.start()
    thread.join(within_s)
    return said[0] if said else f"no answer within {within_s:g} s"
