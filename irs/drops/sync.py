"""``irs sync``: puts the pictures of a folder into the drop box, and only those that are new."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from irs import records
from irs.client.inputs import Refused, Source, sources
from irs.cloud import Cloud
from irs.drops.objects import CALLS, Objects, Standing
from irs.errors import BadOptions
from irs.records import DROPS, RESULTS

#: With keys of one's own (SSE-KMS) an ETag is no digest of the bytes: then this tells.
DIGEST = "irs-md5"


@dataclass(slots=True)
class Synced:
    """Names of files: ``sent`` now (or, dry, to be sent), ``known`` before, ``refused`` with the reason."""

    sent: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def sync(
    cloud: Cloud, folder: Path, *, prefix: str = "", dry_run: bool = False, on_sent: Callable[[str], object] | None = None
) -> Synced:
    """Put the folder's pictures under ``drop/{prefix}``; safe to run twice, and to break off.

    A file is known if its bytes stand there, or if they stood there and their record still does. Of the folder, hidden
    files and files named as something else than pictures are left out.

    Raises:
        BadOptions: ``folder`` is none.
        MissingResource, SetupError, StorageUnavailable: as S3 answers; what was sent by then stands.
    """
    if not folder.is_dir():
        raise BadOptions(f"{folder} is no folder: name one that holds the pictures")
    box = _Box(cloud, prefix)
    done = Synced()

    def one(source: Source) -> tuple[str, str | None, bool]:
        try:
            body = source.load(cloud.settings.max_bytes)
        except Refused as refused:
            return source.name, refused.fault.message, False
        if box.knows(source.name, body):
            return source.name, None, False
        if not dry_run:
            box.put(source.name, body)
        return source.name, None, True

    with ThreadPoolExecutor(CALLS, "irs-sync") as pool:
        for name, refused, is_new in pool.map(one, sources(folder, cloud.settings.max_bytes)):
            if refused is not None:
                done.refused[name] = refused
            elif is_new:
                done.sent.append(name)
                if on_sent is not None:
                    on_sent(name)
            else:
                done.known.append(name)
    return done


class _Box:
    """The part of the drop box under one prefix, listed once."""

    def __init__(self, cloud: Cloud, prefix: str) -> None:
        self._objects, settings = Objects(cloud), cloud.settings
        self._input, self._output = settings.input_bucket, settings.output_bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._dropped: dict[str, Standing] = {one.key: one for one in self._objects.list(self._input, f"{DROPS}{self._prefix}")}
        self._answered = {one.key for one in self._objects.list(self._output, f"{RESULTS}{self._prefix}")}

    def knows(self, name: str, body: bytes) -> bool:
        """Return whether the file stands there with these bytes, or did and has been answered."""
        key, digest = self._key(name), _digest(body)
        standing = self._dropped.get(key)
        if standing is None:
            # Images expire before records do.
            name = key.removeprefix(DROPS)
            record = records.record_key(records.drop_task_id(key, digest))
            return records.result_key(name) in self._answered and self._objects.find(self._output, record) is not None
        if standing.size != len(body) or standing.etag == digest:
            return standing.size == len(body)
        found = self._objects.find(self._input, key)
        return found is not None and found.metadata.get(DIGEST) == digest

    def put(self, name: str, body: bytes) -> None:
        """Drop a file."""
        self._objects.put(
            self._input, self._key(name), body, ContentType="application/octet-stream", Metadata={DIGEST: _digest(body)}
        )

    def _key(self, name: str) -> str:
        return f"{DROPS}{self._prefix}{name}"


def _digest(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
