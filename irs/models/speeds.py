"""How many images a second each model was measured at on this machine, in one small file under IRS_HOME."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from irs.models.files import write_whole

_FILE = "speeds.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One measurement: ``at`` in Unix seconds, ``device`` and ``precision`` as the worker names them."""

    images_per_s: float = Field(gt=0)
    at: float
    device: str = "cpu"
    precision: str = "fp32"


_adapter = TypeAdapter(dict[str, Speed])


def read_speeds(home: Path) -> dict[str, Speed]:
    """Return the measurements by the model's name; none where nothing was measured or the file cannot be read."""
    try:
        return _adapter.validate_json((home / _FILE).read_bytes())
    except (OSError, ValidationError):
        return {}


def write_speed(home: Path, name: str, speed: Speed) -> None:
    """Keep the last measurement of a model; the file is replaced as a whole.

    Raises:
        OSError: it cannot be written.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(home / _FILE, _adapter.dump_json(read_speeds(home) | {name: speed}, indent=1))
