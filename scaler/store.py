"""The book in the output bucket: read with its ETag, replaced only while it still has that ETag."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from irs.cloud import Cloud
from irs.errors import MissingResource, PassingError, SetupError, StorageUnavailable
from irs.records import SCALER_STATE_KEY
from scaler.book import Book

#: Shorter than a third of the shortest lease: a write that takes longer has an unknown outcome.
WITHIN_S = 4.0


class Conflict(PassingError):
    """Another write came first."""

    code = "conflict"


@dataclass(frozen=True, slots=True)
class Stored:
    """The book and the ETag that it is stored under; ``is_readable`` is False where its text is none of ours."""

    book: Book
    etag: str
    is_readable: bool = True


class Store(Protocol):
    """One book. ``now`` is the caller's clock: ages in the text are counted from it."""

    def read(self, now: float) -> Stored | None:
        """Return the book, None if there is none. Raises StorageUnavailable."""

    def write(self, book: Book, etag: str | None, now: float) -> str:
        """Replace the book that has ``etag``, or make it where there is none; return the new ETag.

        Raises:
            Conflict: it has another ETag, or is there already.
            StorageUnavailable: whether it was stored is unknown.
        """


class S3Store:
    """The book in S3, by conditional writes. No call is repeated within: its outcome would be another's."""

    def __init__(self, cloud: Cloud) -> None:
        self._bucket = cloud.settings.output_bucket
        self._s3 = cloud.client("s3", read_seconds=WITHIN_S, attempts=1, pool=4)

    def read(self, now: float) -> Stored | None:
        """As :meth:`Store.read`; raises MissingResource when the bucket itself is not there."""
        with _told(self._bucket) as told:
            got = self._s3.get_object(Bucket=self._bucket, Key=SCALER_STATE_KEY)
            body, etag = got["Body"].read(), str(got["ETag"])
        if told.is_absent:
            return None
        try:
            return Stored(Book.from_json(json.loads(body), now), etag)
        except (ValueError, TypeError):
            return Stored(Book(), etag, is_readable=False)

    def write(self, book: Book, etag: str | None, now: float) -> str:
        """As :meth:`Store.write`."""
        return self._put(SCALER_STATE_KEY, json.dumps(book.to_json(now), separators=(",", ":")).encode(), etag)

    def probe(self) -> None:
        """Make sure that the store honours conditions: without them two scalers would both think that they lead.

        Raises:
            SetupError: it does not.
            MissingResource, StorageUnavailable: as the store answers.
        """
        key = f"{SCALER_STATE_KEY}.probe-{uuid.uuid4().hex}"
        first = self._put(key, b"1", None)
        try:
            for etag in (None, '"0"'):
                try:
                    self._put(key, b"2", etag)
                except Conflict:
                    continue
                raise SetupError(
                    "The output bucket's store ignores conditional writes (If-None-Match, If-Match), so no two scalers could"
                    " tell who leads: use S3, or a store that has them."
                )
            self._put(key, b"3", first)
        finally:
            with _told(self._bucket):
                self._s3.delete_object(Bucket=self._bucket, Key=key)

    def _put(self, key: str, body: bytes, etag: str | None) -> str:
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        with _told(self._bucket) as told:
            put = self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/json", **condition)
        if told.is_absent:
            # If-Match on what is not there: it was deleted meanwhile.
            raise Conflict(f"s3://{self._bucket}/{key} is gone")
        return str(put["ETag"])


@dataclass(slots=True)
class _Told:
    is_absent: bool = False


@contextmanager
def _told(bucket: str) -> Iterator[_Told]:
    """Turn what boto3 raises into our errors; an object that is not there is told, not raised."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    told = _Told()
    try:
        yield told
    except ClientError as error:
        code, status = _facts(error)
        if code == "NoSuchBucket":
            raise MissingResource(f"Bucket {bucket} is not there: run `irs provision` first.") from None
        if status == 404:
            told.is_absent = True
            return
        # 409: another conditional write of the key was under way.
        if status in (409, 412):
            raise Conflict(f"s3://{bucket}: another write came first") from None
        raise StorageUnavailable(f"S3 does not answer for s3://{bucket}: {error}") from None
    except (BotoCoreError, HTTPClientError, OSError) as error:
        raise StorageUnavailable(f"S3 does not answer for s3://{bucket}: {error}") from None


def _facts(error: Any) -> tuple[str, int]:
    return str(error.response["Error"].get("Code", "")), int(error.response["ResponseMetadata"]["HTTPStatusCode"])
