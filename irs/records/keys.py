"""Ids, and the keys that hang on them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from urllib.parse import unquote

from ulid import ULID

MAX_NAME_CHARACTERS = 100
#: Prefix of the tombstones in the output bucket: flat and by time, so that one LIST tells the new ones.
TOMBSTONES = "cancelled/"
#: Lease and memory of the scaler in the output bucket: written anew every few seconds while one leads.
SCALER_STATE_KEY = "scaler/state.json"

#: S3 takes keys of 1024 bytes, prefix and ending included.
_MOST_ENCODED = 900
_KEPT_OF_LONG = 200

_TOMBSTONE = re.compile(r"cancelled/([0-9a-hjkmnp-tv-z]{26})\.(.+)")


def new_job_id() -> str:
    """Return a fresh job id: a ULID in lower case, so ids sort by time."""
    return str(ULID()).lower()


def task_id(job: str, number: int) -> str:
    """Return the task id of image ``number`` (from 0) of ``job``."""
    return f"{job}.{number:06d}"


# One form for one number, and no more digits than a number is read from.
_NUMBER = "([0-9]{6}|[1-9][0-9]{6,9})"
_TASK_ID = re.compile(rf"([0-9a-hjkmnp-tv-z]{{26}})\.{_NUMBER}")


def split_task_id(value: str) -> tuple[str, int] | None:
    """Return job and number of a job's task id, or None for the id of a plain call."""
    match = _TASK_ID.fullmatch(value)
    return (match[1], int(match[2])) if match else None


def record_key(task_id: str) -> str:
    """Return the key of the task's record in the output bucket."""
    if split := split_task_id(task_id):
        return f"jobs/{split[0]}/{split[1]:06d}.json"
    return f"tasks/{safe_id(task_id)}.json"


def safe_id(id: str) -> str:
    """Return an id fit for a key: ids of plain calls are chosen by callers.

    What is unsafe in a key is percent-encoded, what is too long for one is cut and ends in its SHA-256.
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode(errors="replace")), id)
    if len(safe) > _MOST_ENCODED:
        return f"{safe[:_KEPT_OF_LONG]}~{hashlib.sha256(safe.encode()).hexdigest()}"
    return safe if safe.strip(".") else "%2E" * len(safe)


def job_prefix(job: str) -> str:
    """Return the prefix of all that belongs to ``job``, in either bucket."""
    return f"jobs/{job}/"


def open_key(job: str) -> str:
    """Return the key of the job's :class:`~irs.records.JobOpen`."""
    return f"jobs/{job}/open.json"


def manifest_key(job: str) -> str:
    """Return the key of the job's :class:`~irs.records.Manifest`."""
    return f"jobs/{job}/manifest.json"


def job_cancelled_key(job: str) -> str:
    """Return the key of the mark by which readers know that the job is cancelled; stored after its tombstone."""
    return f"jobs/{job}/cancelled"


def tombstone_key(ulid: str, id: str) -> str:
    """Return the key by which workers learn that a job, or a task, is cancelled; ``ulid`` says when."""
    return f"{TOMBSTONES}{ulid}.{safe_id(id)}"


def read_tombstone_key(key: str) -> tuple[str, str] | None:
    """Return the ULID and the id of the job or task behind a tombstone's key, None for a key of another kind."""
    match = _TOMBSTONE.fullmatch(key)
    return (match[1], unquote(match[2])) if match else None


def ulid_at(at: float) -> str:
    """Return the lowest ULID of a moment in Unix seconds, for listings that begin there."""
    return str(ULID.from_timestamp(max(0.0, at)))[:10].lower() + "0" * 16


def time_of_ulid(ulid: str) -> float:
    """Return the moment of a ULID in Unix seconds.

    Raises:
        ValueError: it is none.
    """
    return ULID.from_str(ulid.upper()).timestamp


def beat_key(instance: str) -> str:
    """Return the key of a worker's :class:`~irs.records.Beat`."""
    return f"workers/{instance}.json"


def order_key(instance: str) -> str:
    """Return the key of the :class:`~irs.records.Order` a worker is under."""
    return f"desired/{instance}"


def image_key(job: str, number: int, name: str) -> str:
    """Return the input key of image ``number``; two files of one name never meet."""
    return f"jobs/{job}/{number:06d}/{safe_name(name)}"


_NUMBERED = re.compile(rf"jobs/[^/]+/{_NUMBER}\.json")


def number_of_record_key(key: str) -> int | None:
    """Return the image number behind a record's key, None for the job's other objects."""
    match = _NUMBERED.fullmatch(key)
    return int(match[1]) if match else None


_IMAGE = re.compile(rf"jobs/[^/]+/{_NUMBER}/.+")


def number_of_image_key(key: str) -> int | None:
    """Return the image number behind an image's key in the input bucket, None for another object."""
    match = _IMAGE.fullmatch(key)
    return int(match[1]) if match else None


def safe_name(name: str) -> str:
    """Return the last part of ``name`` fit for a key: letters, digits, ``._-``, at most 100 characters.

    The ending survives the cut; an empty result becomes ``image``.
    """
    last = re.split(r"[/\\]", name)[-1]
    ascii_ = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    clean = re.sub(r"[^A-Za-z0-9._-]+", "_", ascii_).strip("._") or "image"
    if len(clean) <= MAX_NAME_CHARACTERS:
        return clean
    stem, dot, ending = clean.rpartition(".")
    if not dot or len(ending) > 10:
        return clean[:MAX_NAME_CHARACTERS]
    return f"{stem[: MAX_NAME_CHARACTERS - len(ending) - 1]}.{ending}"
