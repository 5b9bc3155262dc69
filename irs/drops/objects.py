"""The few calls to S3 that need an object's ETag: what stands, and writes that lose against another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from irs.cloud import NO_CREDENTIALS, Cloud
from irs.errors import MissingResource, SetupError, StorageUnavailable, Unreachable

#: Calls at once, each over a connection of its own.
CALLS = 16


@dataclass(frozen=True, slots=True)
class Standing:
    """One object as it stands: ``etag`` without quotes, ``modified`` in UTC, its user metadata where it was asked for."""

    key: str
    etag: str
    size: int
    modified: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)


class Objects:
    """Objects of any bucket. Safe for threads.

    Every call may raise StorageUnavailable; MissingResource: there is no such bucket; SetupError: it is refused.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._where = cloud.settings.endpoint_url or f"AWS {cloud.settings.region}"
        self._s3: Any = cloud.client("s3", read_seconds=cloud.settings.fetch_seconds, pool=CALLS)

    def find(self, bucket: str, key: str) -> Standing | None:
        """Return what stands under ``key``, None if nothing does."""
        with self._told(bucket):
            try:
                got = self._s3.head_object(Bucket=bucket, Key=key)
            except self._s3.exceptions.ClientError as error:
                if _status(error) == 404:
                    return None
                raise
        return Standing(key, got["ETag"].strip('"'), got["ContentLength"], got["LastModified"], got.get("Metadata", {}))

    def list(self, bucket: str, prefix: str) -> Iterator[Standing]:
        """Yield what stands under ``prefix``, by key."""
        with self._told(bucket):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for one in page.get("Contents", ()):
                    yield Standing(one["Key"], one["ETag"].strip('"'), one["Size"], one["LastModified"])

    def put(self, bucket: str, key: str, body: bytes, **more: Any) -> None:
        """Store an object; ``more`` as boto3 names it."""
        with self._told(bucket):
            self._s3.put_object(Bucket=bucket, Key=key, Body=body, **more)

    def replace(self, bucket: str, key: str, body: bytes, standing: Standing | None, *, content_type: str) -> bool:
        """Store an object in the place of ``standing``, None: of nothing; return False if something else stands there now."""
        condition = {"IfMatch": standing.etag} if standing else {"IfNoneMatch": "*"}
        with self._told(bucket):
            try:
                self._s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type, **condition)
            except self._s3.exceptions.ClientError as error:
                # 404: it was deleted meanwhile; 409: another conditional write of it was under way.
                if _status(error) in (404, 409, 412) and _code(error) != "NoSuchBucket":
                    return False
                raise
        return True

    @contextmanager
    def _told(self, bucket: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except NoCredentialsError:
            raise Unreachable(NO_CREDENTIALS) from None
        except ClientError as error:
            if _status(error) == 404:
                raise MissingResource(f"Bucket {bucket} is not there: run `irs provision` first.") from None
            if _code(error) in ("AccessDenied", "403"):
                raise SetupError(f"These credentials may not use bucket {bucket} at {self._where}: {error}") from None
            raise StorageUnavailable(f"S3 does not answer for s3://{bucket}: {error}") from None
        except (BotoCoreError, OSError) as error:
            raise StorageUnavailable(f"S3 does not answer for s3://{bucket} at {self._where}: {error}") from None


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _code(error: Any) -> str:
    return str(error.response["Error"].get("Code", ""))
