"""Models in a bucket: each under its digest, written once, checked when it is fetched.

::

    s3://{bucket}/{name}/{digest}/…               the files of a model directory
    s3://{bucket}/{name}/{digest}/manifest.json   what they are: written last, so a model is there whole or not at all
    s3://{bucket}/{name}/current.json             which digest the name stands for now (:mod:`irs.models.rolls`)

Needs no torch but for :meth:`Registry.push`, which opens the model first.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from irs.cloud import Cloud
from irs.errors import MissingResource, ModelError, NotFound, Unreachable
from irs.models.files import digests_of
from irs.models.manifest import MANIFEST, File, Manifest, describe
from irs.models.reference import DIGEST_HEX, Reference, is_name

READ_SECONDS = 30.0
_CHUNK_BYTES = 2**20
#: No model is described by more: what is larger is none.
_MOST_MANIFEST_BYTES = 2**20
_MODEL_KEY = re.compile(rf"([^/]+)/([0-9a-f]{{{DIGEST_HEX}}})/{re.escape(MANIFEST)}")

Moved = Callable[[int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """One model of the bucket.

    Attributes:
        manifest: None where it is broken; ``problem`` then says why.
        stored: when the bucket says so, aware and to the second.
    """

    reference: Reference
    manifest: Manifest | None
    stored: datetime
    problem: str | None = None


class Registry:
    """The models of one bucket.

    Every call may raise MissingResource (no such bucket) and Unreachable (no answer, or refused), and may run twice.
    """

    def __init__(self, cloud: Cloud, bucket: str = "", *, read_seconds: float = READ_SECONDS, attempts: int = 3) -> None:
        self.bucket = bucket or cloud.settings.models_bucket
        self._s3 = cloud.client("s3", read_seconds=read_seconds, attempts=attempts)

    def push(self, directory: Path, *, moved: Moved = lambda _: None) -> tuple[Reference, list[str]]:
        """Store the model in ``directory`` under its digest; return where, and which files had to be written.

        Of a model that is there already each file is compared, and written again only where it is broken.

        Raises:
            ModelError: the directory is no model that a worker could load, or its name cannot be part of an address,
                or another model stands under its digest.
        """
        from irs.models.architectures import check_takes
        from irs.models.directory import open_directory

        model = open_directory(directory)
        check_takes(model.build(), model.preprocess.crop, model.name)
        manifest = describe(directory, model)
        reference = Reference(self.bucket, manifest.name, manifest.digest)
        stands = self._find_manifest(reference)
        _check_same(stands, manifest, reference, directory)
        written = [file.path for file in manifest.files if stands is None or not self._holds(reference, file)]
        for file in manifest.files:
            if file.path in written:
                self._upload(directory / file.path, reference, file)
            moved(file.size_bytes)
        if stands is None:
            if not self._put(f"{reference.key}/{MANIFEST}", manifest.to_bytes(), IfNoneMatch="*"):
                # Two pushed at once: mostly the same bytes.
                _check_same(self._find_manifest(reference), manifest, reference, directory)
            written.append(MANIFEST)
        return reference, written

    def manifest(self, reference: Reference) -> Manifest:
        """Return what a model consists of; ``reference`` names its digest.

        Raises:
            ModelError: there is no such model, or its manifest is broken.
        """
        found = self._find_manifest(reference)
        if found is None:
            raise ModelError(f"There is no model {reference}: `irs models list --bucket` shows those that are there.")
        return found

    def fetch(self, reference: Reference, directory: Path, *, moved: Moved = lambda _: None) -> Manifest:
        """Fetch a model into ``directory``, which is made, and is left away again when a file is not what was pushed.

        Raises:
            ModelError: as :meth:`manifest`, or an object is missing or was changed.
        """
        manifest = self.manifest(reference)
        directory.mkdir(parents=True)
        try:
            for file in manifest.files:
                path = directory / file.path
                path.parent.mkdir(exist_ok=True)
                with path.open("wb") as into:
                    self._check(reference, file, self._copy(reference, file, into, moved))
            if digests_of(directory)[1] != manifest.digest:
                raise ModelError(f"{reference} is broken: its files have another digest; push the model again.")
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return manifest

    def models(self, name: str = "") -> list[Shared]:
        """Return the models of one name or of all, by name and then by age; a broken one hides no other."""
        prefix = f"{name}/" if name else ""
        with self._told(prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            found = [(item["Key"], item["LastModified"]) for page in pages for item in page.get("Contents", ())]
        models = [
            self._shared(Reference(self.bucket, match[1], match[2]), stored)
            for key, stored in found
            if (match := _MODEL_KEY.fullmatch(key)) and is_name(match[1])
        ]
        return sorted(
            models, key=lambda one: (one.reference.name, one.stored, one.manifest.pushed_at if one.manifest is not None else 0.0)
        )

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return a small object and its ETag, None if it is not there."""
        try:
            with self._told(key):
                got = self._s3.get_object(Bucket=self.bucket, Key=key)
                return got["Body"].read(_MOST_MANIFEST_BYTES), str(got["ETag"])
        except NotFound:
            return None

    def replace(self, key: str, body: bytes, etag: str | None) -> bool:
        """Store a small object if it is still the one with ``etag``, or still absent; return whether it was stored."""
        return self._put(key, body, **({"IfMatch": etag} if etag else {"IfNoneMatch": "*"}))

    def _shared(self, reference: Reference, stored: datetime) -> Shared:
        try:
            return Shared(reference=reference, manifest=self.manifest(reference), stored=stored)
        except ModelError as error:
            return Shared(reference=reference, manifest=None, stored=stored, problem=str(error))

    def _find_manifest(self, reference: Reference) -> Manifest | None:
        found = self.read(f"{reference.key}/{MANIFEST}")
        return None if found is None else Manifest.read(found[0], reference)

    def _holds(self, reference: Reference, file: File) -> bool:
        try:
            self._check(reference, file, self._copy(reference, file, None, lambda _: None))
        except ModelError:
            return False
        return True

    def _copy(self, reference: Reference, file: File, into: IO[bytes] | None, moved: Moved) -> str:
        """Return the object's SHA-256, its bytes written to ``into``; reads no more than the file should have."""
        key, sha256 = f"{reference.key}/{file.path}", hashlib.sha256()
        try:
            with self._told(key):
                got = self._s3.get_object(Bucket=self.bucket, Key=key)
                if got["ContentLength"] != file.size_bytes:
                    raise ModelError(_changed(reference, file, f"{got['ContentLength']:,} bytes instead of {file.size_bytes:,}"))
                for chunk in got["Body"].iter_chunks(_CHUNK_BYTES):
                    sha256.update(chunk)
                    if into is not None:
                        into.write(chunk)
                    moved(len(chunk))
        except NotFound:
            raise ModelError(_changed(reference, file, "it is missing")) from None
        return sha256.hexdigest()

    def _check(self, reference: Reference, file: File, sha256: str) -> None:
        if sha256 != file.sha256:
            raise ModelError(_changed(reference, file, "sha256 differs"))

    def _upload(self, path: Path, reference: Reference, file: File) -> None:
        with self._told(f"{reference.key}/{file.path}"):
            # In parts where it is large; a part that does not arrive whole is refused by its checksum.
            self._s3.upload_file(str(path), self.bucket, f"{reference.key}/{file.path}")

    def _put(self, key: str, body: bytes, **condition: str) -> bool:
        from botocore.exceptions import ClientError

        with self._told(key):
            try:
                self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="application/json", **condition)
            except ClientError as error:
                # 409: another conditional write of the same key was under way.
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                    return False
                raise
        return True

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Turn what boto3 raises into our errors; NotFound means the object alone."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"s3://{self.bucket}/{key}"
        try:
            yield
        except ClientError as error:
            raise self._meaning(error, where) from None
        except S3UploadFailedError as error:
            raise Unreachable(f"{where} cannot be stored: {error}") from None
        except BotoCoreError as error:
            raise Unreachable(f"S3 does not answer for {where}: {error}") from None

    def _meaning(self, error: Any, where: str) -> Exception:
        code, status = error.response["Error"].get("Code", ""), error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code == "NoSuchBucket":
            return MissingResource(f"Bucket {self.bucket} is not there: run `irs provision`, or set IRS_MODELS_BUCKET.")
        if status == 404:
            return NotFound(where)
        if status in (401, 403):
            return Unreachable(
                f"{where} may not be used ({code}): allow this process to list, get and put objects of the bucket."
            )
        return Unreachable(f"S3 does not answer for {where}: {error}")


def _check_same(stands: Manifest | None, manifest: Manifest, reference: Reference, directory: Path) -> None:
    if stands is not None and stands.files != manifest.files:
        raise ModelError(
            f"{reference} holds other files beside the same weights: change `name` or `source` in {directory / 'model.json'}."
        )


def _changed(reference: Reference, file: File, why: str) -> str:
    return f"{reference}/{file.path} is not what was pushed ({why}): push the model again, or name another one."
