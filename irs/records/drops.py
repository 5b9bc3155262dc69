"""Names of the drop box: what a file under ``drop/`` is called as a task, and where its result stands."""

from __future__ import annotations

import hashlib
import re

#: Prefix of dropped files in the input bucket, and of what is answered for them in the output bucket.
DROPS, RESULTS = "drop/", "results/"
#: Prefix of the records of single tasks, dropped files' among them.
TASKS = "tasks/"

_MOST_KEY_BYTES = 1024
_DROP_RECORD = re.compile(r"tasks/([0-9a-f]{64})\.json")


def drop_task_id(key: str, etag: str) -> str:
    """Return the task id of one version of a dropped file: the same file dropped again is the same task.

    Args:
        etag: as S3 tells it, with or without its quotes.
    """
    return hashlib.sha256(f"{key}\n{etag.strip(chr(34))}".encode(errors="surrogatepass")).hexdigest()


def drop_of_record_key(key: str) -> str | None:
    """Return the task id behind the key of what may be a dropped file's record, None for any other key.

    Celery's own ids hold dashes, so plain calls are told apart without reading their records.
    """
    match = _DROP_RECORD.fullmatch(key)
    return match[1] if match else None


def drop_name(key: str) -> str | None:
    """Return a dropped file's name, folders included; None for a key of no file, such as a folder's own."""
    name = key.removeprefix(DROPS)
    return name if key.startswith(DROPS) and name and not name.endswith("/") else None


def result_key(name: str) -> str:
    """Return the key of a dropped file's result: ``results/{name}.json``, of a name too long for it a cut one."""
    key = f"{RESULTS}{name}.json"
    if len(key.encode()) <= _MOST_KEY_BYTES:
        return key
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    room = _MOST_KEY_BYTES - len(f"{RESULTS}~{digest}.json")
    return f"{RESULTS}{name.encode()[:room].decode(errors='ignore')}~{digest}.json"
