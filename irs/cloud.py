"""The only maker of boto3 clients and object stores.

Objects go through obstore (a fifth of boto3's CPU, the GIL free while it waits), queues and set-up through
boto3. obstore's runtime does not survive ``fork``, so a forked child reads and writes objects through boto3.
Clients are shared by all threads of a process and made anew in a forked child.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from irs.errors import Forbidden, MissingResource, NotFound, StorageUnavailable, Unreachable
from irs.settings import Settings, get_settings
from irs.tally import ANSWERS, CALLS, OK, Call

if TYPE_CHECKING:
    import boto3

CONNECT_SECONDS = 5.0
#: An object store's own retries inside one call; beyond them the message comes back with back-off.
STORE_RETRIES = 2
#: What everyone meets who has neither a service on this machine nor an account yet.
NO_CREDENTIALS = (
    "No AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role;"
    " or start a service on this machine with `irs up`."
)
#: Objects in one answer to a listing.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing; ``modified`` is aware and in UTC."""

    key: str
    size: int
    modified: datetime


class Opened(Protocol):
    """An object whose length is known and whose bytes are still to be read."""

    size: int

    def read(self) -> bytes:
        """Return all bytes.

        Raises:
            StorageUnavailable: the connection broke.
        """


class Bucket(Protocol):
    """Objects of one bucket. Every call may raise StorageUnavailable; the name is in ``name``."""

    name: str

    def open(self, key: str) -> Opened:
        """Ask for an object; its length is known before its bytes are read.

        Raises:
            NotFound, Forbidden: as S3 answers.
        """

    def get(self, key: str) -> bytes:
        """Return an object's bytes; raises as :meth:`open`."""

    def put(self, key: str, body: bytes, *, content_type: str, create: bool = False) -> bool:
        """Store an object; with ``create`` only if none is there. Return whether it was stored: False says that one stands."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Yield the objects under ``prefix`` whose key is greater than ``after``, by key."""

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""


class Cloud:
    """The clients and buckets of one set of settings, made when first asked for. Safe for threads and fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._made: dict[tuple[object, ...], Any] = {}
        self._lock = threading.Lock()
        self._session: boto3.Session | None = None
        _CLOUDS.append(self)

    def client(self, service: str, *, read_seconds: float = 10.0, attempts: int = 3, pool: int = 16) -> Any:
        """Return the shared boto3 client of ``service``.

        Args:
            read_seconds: how long one call may wait for bytes.
            attempts: tries of one call in all, with botocore's standard back-off.
            pool: connections kept open.
        """
        # boto3 costs 0.2 s at import: only who talks to the cloud pays for it.
        import botocore.config

        key = ("client", service, read_seconds, attempts, pool)
        with self._lock:
            if key not in self._made:
                config = botocore.config.Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=read_seconds,
                    retries={"total_max_attempts": attempts, "mode": "standard"},
                    max_pool_connections=pool,
                    tcp_keepalive=True,
                    s3={"addressing_style": "path"} if self.settings.endpoint_url else None,
                )
                self._made[key] = self.session().client(service, endpoint_url=self.settings.endpoint_url or None, config=config)
            return self._made[key]

    def sqs(self) -> Any:
        """Return the SQS client for short calls (5 s, three tries)."""
        return self.client("sqs", read_seconds=5.0)

    def queue_url(self, name: str) -> str:
        """Return the URL of a queue, asked for once.

        Raises:
            MissingResource: there is no such queue.
            Unreachable: the endpoint does not answer.
        """
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        with self._lock:
            if url := self._made.get(("queue", name)):
                return str(url)
        try:
            url = self.sqs().get_queue_url(QueueName=name).get("QueueUrl")
        except ClientError as error:
            if "NonExistentQueue" in error.response["Error"]["Code"] or "QueueDoesNotExist" in error.response["Error"]["Code"]:
                raise MissingResource(f"Queue {name} is not there: run `irs provision` first.") from None
            raise Unreachable(f"SQS refuses to name queue {name}: {error.response['Error'].get('Message', error)}") from None
        except NoCredentialsError:
            raise Unreachable(NO_CREDENTIALS) from None
        except BotoCoreError as error:
            raise Unreachable(f"SQS cannot be reached{self._where()}: {error}") from None
        if not url:
            raise Unreachable(f"SQS cannot be reached{self._where()}: what answers there is not SQS.")
        with self._lock:
            self._made[("queue", name)] = url
        return str(url)

    def bucket(self, name: str) -> Bucket:
        """Return the shared bucket of that name (not asked whether it exists)."""
        with self._lock:
            if found := self._made.get(("bucket", name)):
                return found  # type: ignore[no-any-return]
        made: Bucket = _BotoBucket(name, self) if _FORKED else _ObstoreBucket(name, self)
        with self._lock:
            return self._made.setdefault(("bucket", name), made)  # type: ignore[no-any-return]

    @property
    def input(self) -> Bucket:
        """The bucket of the images."""
        return self.bucket(self.settings.input_bucket)

    @property
    def output(self) -> Bucket:
        """The bucket of the records."""
        return self.bucket(self.settings.output_bucket)

    def session(self) -> boto3.Session:
        """Return the shared boto3 session; making clients from it is for this class alone."""
        import boto3

        if self._session is None:
            self._session = boto3.Session(region_name=self.settings.region)
            for event, note in (("before-call", _begin), ("after-call", _note), ("after-call-error", _note_error)):
                self._session.events.register(event, note)
        return self._session

    def _where(self) -> str:
        return f" at {self.settings.endpoint_url}" if self.settings.endpoint_url else ""

    def _after_fork(self) -> None:
        self._made, self._lock, self._session = {}, threading.Lock(), None


# boto3's calls are counted from its own events; obstore's and pycurl's where they are made.


def _begin(model: Any, context: dict[str, Any], **_: Any) -> None:
    context["irs_call"] = (model.service_model.endpoint_prefix, model.name, time.monotonic())


def _note(parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    status = parsed.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = OK if 200 <= status < 300 else str(status)
    if code != OK and code not in ANSWERS.values():
        code = str(parsed.get("Error", {}).get("Code", code))
    _note_code(code, context)


def _note_error(exception: BaseException, context: dict[str, Any], **_: Any) -> None:
    _note_code(type(exception).__name__, context)


def _note_code(code: str, context: dict[str, Any]) -> None:
    # Not there where another handler answered in place of AWS.
    if call := context.pop("irs_call", None):
        service, operation, began = call
        CALLS.note((service, operation, code), time.monotonic() - began)


_CLOUDS: list[Cloud] = []
_FORKED = False


def _forget_after_fork() -> None:
    global _FORKED
    # The child must not touch obstore if its parent did: the runtime's threads did not come along.
    _FORKED = _FORKED or _ObstoreBucket.used
    for cloud in _CLOUDS:
        cloud._after_fork()


os.register_at_fork(after_in_child=_forget_after_fork)

_shared: dict[Settings, Cloud] = {}


def get_cloud(settings: Settings | None = None) -> Cloud:
    """Return the cloud shared by everything in this process that has equal settings."""
    settings = settings or get_settings()
    return _shared.setdefault(settings, Cloud(settings)) if settings not in _shared else _shared[settings]


@contextmanager
def _translated(bucket: str, key: str) -> Iterator[None]:
    """Turn what obstore and botocore raise into our errors."""
    from botocore.exceptions import BotoCoreError, ClientError
    from obstore import exceptions as store

    try:
        yield
    except (store.NotFoundError, FileNotFoundError):
        raise NotFound(f"s3://{bucket}/{key}") from None
    except (store.PermissionDeniedError, store.UnauthenticatedError) as error:
        # A 403 may also speak of the clock or the keys of this process, which pass: never of the image. Nor do keys that
        # cannot be had (unauthenticated, to obstore), whatever was denied there.
        if isinstance(error, store.PermissionDeniedError) and "AccessDenied" in str(error):
            raise Forbidden(f"s3://{bucket}/{key}") from None
        raise StorageUnavailable(f"S3 refuses this process for s3://{bucket}/{key}: {first_line(error)}") from error
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status == 404:
            raise NotFound(f"s3://{bucket}/{key}") from None
        if status in (401, 403) and error.response["Error"].get("Code") in ("AccessDenied", "403"):
            raise Forbidden(f"s3://{bucket}/{key}") from None
        raise StorageUnavailable(f"S3 does not answer for s3://{bucket}/{key}: {error}") from error
    except (store.BaseError, BotoCoreError, OSError) as error:
        if isinstance(error, store.AlreadyExistsError | store.InvalidPathError):
            raise
        raise StorageUnavailable(f"S3 does not answer for s3://{bucket}/{key}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return an error's first line: obstore's texts go on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_is_object(etag: str | None, bucket: str, key: str) -> None:
    """Refuse what S3 did not send: the page of some proxy must not be taken for a damaged image."""
    if not etag:
        raise StorageUnavailable(f"What answered for s3://{bucket}/{key} is not S3")


class _ObstoreBucket:
    used = False

    def __init__(self, name: str, cloud: Cloud) -> None:
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        _ObstoreBucket.used = True
        self.name = name
        self._cloud = cloud
        settings, session = cloud.settings, cloud.session()
        if session.get_credentials() is None:
            raise Unreachable(NO_CREDENTIALS)
        limit = timedelta(seconds=settings.fetch_seconds)
        self._store = S3Store(
            name,
            region=settings.region,
            # A role's keys end: asked for again well before, from botocore, which renews them by itself.
            credential_provider=Boto3CredentialProvider(session, ttl=timedelta(minutes=5)),
            client_options={
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "timeout": limit,
                "allow_http": settings.endpoint_url.startswith("http://"),
            },
            retry_config={"max_retries": STORE_RETRIES, "retry_timeout": limit},
            endpoint=settings.endpoint_url or None,
            virtual_hosted_style_request=not settings.endpoint_url,
        )

    def open(self, key: str) -> Opened:
        from obstore.exceptions import InvalidPathError

        try:
            with Call("s3", "GetObject"), _translated(self.name, key):
                got = self._store.get(key)
        except (InvalidPathError, ValueError):
            # S3 allows keys such as a//b, which obstore refuses to spell.
            return _BotoBucket(self.name, self._cloud).open(key)
        _check_is_object(got.meta["e_tag"], self.name, key)
        return _Opened(got.meta["size"], lambda: bytes(got.bytes()), self.name, key)

    def get(self, key: str) -> bytes:
        return self.open(key).read()

    def put(self, key: str, body: bytes, *, content_type: str, create: bool = False) -> bool:
        from obstore.exceptions import AlreadyExistsError

        try:
            with Call("s3", "PutObject"), _translated(self.name, key):
                self._store.put(
                    key,
                    body,
                    attributes={"Content-Type": content_type},
                    mode="create" if create else "overwrite",
                    use_multipart=False,
                )
        except AlreadyExistsError as error:
            if "status code: 409" in str(error):
                # Another write of the key was under way, and may have failed: S3 asks for this one again.
                raise StorageUnavailable(f"S3 met another write of s3://{self.name}/{key}: {first_line(error)}") from None
            return False
        return True

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        from obstore.exceptions import InvalidPathError

        try:
            for listed in self._listed(prefix, after):
                after = listed.key
                yield listed
        except (InvalidPathError, ValueError):
            # A key that obstore refuses to spell would hide all after it.
            yield from _BotoBucket(self.name, self._cloud).list(prefix, after=after)

    def _listed(self, prefix: str, after: str) -> Iterator[Listed]:
        with _translated(self.name, prefix):
            # obstore lists whole path segments: a prefix that ends inside one is narrowed here.
            folder = prefix.rpartition("/")[0]
            pages = iter(self._store.list(folder or None, offset=after or None, chunk_size=PAGE))
            is_asked = True
            while True:
                with Call("s3", "ListObjectsV2") if is_asked else nullcontext():
                    page = next(pages, None)
                if page is None:
                    return
                # After a page that is not full comes none.
                is_asked = len(page) == PAGE
                for item in page:
                    if item["path"].startswith(prefix):
                        yield Listed(item["path"], item["size"], item["last_modified"])

    def delete(self, key: str) -> None:
        with suppress(NotFound), Call("s3", "DeleteObject"), _translated(self.name, key):
            self._store.delete(key)


class _BotoBucket:
    def __init__(self, name: str, cloud: Cloud) -> None:
        self.name = name
        self._s3 = cloud.client("s3", read_seconds=cloud.settings.fetch_seconds, pool=32)

    def open(self, key: str) -> Opened:
        with _translated(self.name, key):
            got = self._s3.get_object(Bucket=self.name, Key=key)
        _check_is_object(got.get("ETag"), self.name, key)
        return _Opened(got["ContentLength"], got["Body"].read, self.name, key)

    def get(self, key: str) -> bytes:
        return self.open(key).read()

    def put(self, key: str, body: bytes, *, content_type: str, create: bool = False) -> bool:
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if create else {}
        with _translated(self.name, key):
            try:
                self._s3.put_object(Bucket=self.name, Key=key, Body=body, ContentType=content_type, **condition)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 412:
                    return False
                raise
        return True

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        with _translated(self.name, prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix, StartAfter=after)
            for page in pages:
                for item in page.get("Contents", ()):
                    yield Listed(item["Key"], item["Size"], item["LastModified"])

    def delete(self, key: str) -> None:
        with _translated(self.name, key):
            self._s3.delete_object(Bucket=self.name, Key=key)


class _Opened:
    def __init__(self, size: int, read: Callable[[], bytes], bucket: str, key: str) -> None:
        self.size = size
        self._read, self._bucket, self._key = read, bucket, key

    def read(self) -> bytes:
        with _translated(self._bucket, self._key):
            return self._read()
