"""What every measurement of one run shares: the cloud, the photos, how many images, and where logs go."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irs.cloud import Cloud
from irs.errors import BadOptions
from irs.local.bench import load
from irs.local.embedded import EmbeddedCloud, start_embedded_cloud
from irs.local.join import enter
from irs.provision import provision
from irs.settings import read_settings

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """``keys`` are those of ``photos`` in the input bucket; ``images`` are handed in at each measurement."""

    cloud: Cloud
    embedded: EmbeddedCloud
    photos: list[Path]
    keys: list[str]
    images: int
    logs: Path
    say: Say

    def environment(self, model: str, precision: str = "auto") -> dict[str, str]:
        """Return the environment of a process that serves ``model``."""
        return {**os.environ, "IRS_MODEL": model, "IRS_PRECISION": precision}


@contextmanager
def open_stage(photos_dir: Path, *, images: int, say: Say) -> Iterator[Stage]:
    """Start an embedded cloud on a fresh folder and turn this process towards it; end both after.

    Raises:
        BadOptions: the folder holds no JPEG.
        SetupError: the cloud did not start.
    """
    photos = jpegs(photos_dir)
    with tempfile.TemporaryDirectory(prefix="irs-bench-", dir=_memory()) as home, start_embedded_cloud(Path(home)) as embedded:
        enter(embedded)
        os.environ["IRS_HOME"] = home
        cloud = Cloud(read_settings())
        provision(cloud)
        yield Stage(
            cloud=cloud,
            embedded=embedded,
            photos=photos,
            keys=load.upload(cloud, photos),
            images=images,
            logs=Path(home),
            say=say,
        )


def _memory() -> str | None:
    """Return a folder in memory, where there is one: how quickly a disk makes files is not what is measured."""
    folder = "/dev/shm"  # noqa: S108
    return folder if os.access(folder, os.W_OK) else None


def jpegs(folder: Path) -> list[Path]:
    """Return the JPEG files of ``folder`` by name.

    Raises:
        BadOptions: there are none.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise BadOptions(f"{folder} holds no .jpg file: name a folder of photos")
    return found


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    from irs.models.remembered import cpu_name

    return {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
