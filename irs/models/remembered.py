"""What a start found out about the forms of a model on this machine, so that the next one need not: a file under IRS_HOME."""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError

from irs.models.files import write_whole

log = logging.getLogger(__name__)

_FILE = "forms.json"
#: Raised when a form is made in another way: what is remembered of the old way is then not looked at.
_VERSION = 3
#: The oldest leave first: models come and go.
_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a model runs here: ``is_frozen`` as one graph that answers as the net does; ``batch`` pictures a call at most."""

    precision: Literal["fp32", "bf16", "fp16"]
    is_frozen: bool
    batch: int = Field(ge=1)


_adapter = TypeAdapter(dict[str, Form])


def form_key(digest: str, *, device: str, asked: str, batch_size: int) -> str:
    """Return what a form depends on, in one line: the model, what was asked for, torch, and the processor."""
    processor = torch.cuda.get_device_name() if device == "cuda" else cpu_name()
    return f"{digest} {asked} {batch_size} torch {torch.__version__} {processor} {_VERSION}"


def find_form(home: Path, key: str) -> Form | None:
    """Return the form of an earlier start; None where there is none or the file cannot be read."""
    return _read(home).get(key)


def remember(home: Path, key: str, form: Form) -> None:
    """Keep ``form`` for the next start, the file replaced as a whole; where it cannot be written that start measures anew."""
    forms = {old: one for old, one in _read(home).items() if old != key} | {key: form}
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(home / _FILE, _adapter.dump_json(dict(list(forms.items())[-_MOST:]), indent=1))
    except OSError as error:
        log.info("form_not_kept", extra={"reason": str(error)})


def cpu_name() -> str:
    """Return the model of this machine's CPU, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _read(home: Path) -> dict[str, Form]:
    try:
        return _adapter.validate_json((home / _FILE).read_bytes())
    except (OSError, ValidationError):
        return {}
