"""Which model the workers' address stands for now: ``current.json`` in the bucket of shared models."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from irs.cloud import Cloud

log = logging.getLogger(__name__)

LOOK_S = 15.0
WITHIN_S = 3.0
_SCHEME = "s3://"


class CurrentModel:
    """Follows the name in ``IRS_MODEL``; ``clock``: monotonic seconds. Any other model is what it is: None, always.

    ``irs models roll`` writes what is read here (:mod:`irs.models.rolls`).
    """

    def __init__(self, cloud: Cloud, *, clock: Callable[[], float]) -> None:
        bucket, _, name = cloud.settings.model.removeprefix(_SCHEME).rstrip("/").partition("/")
        is_rolled = cloud.settings.model.startswith(_SCHEME) and name and "/" not in name
        self._bucket, self._key = bucket, f"{name}/current.json" if is_rolled else ""
        self._cloud, self._clock = cloud, clock
        self._digest: str | None = None
        self._looked_at: float | None = None
        self._has_failed = False

    def __call__(self) -> str | None:
        """Return the digest, in hex, that the name stands for; None while that is not known. Asks seldom."""
        now = self._clock()
        if self._key and (self._looked_at is None or now - self._looked_at >= LOOK_S):
            self._looked_at = now
            self._digest = self._read()
        return self._digest

    def _read(self) -> str | None:
        from botocore.exceptions import BotoCoreError, ClientError

        s3 = self._cloud.client("s3", read_seconds=WITHIN_S, attempts=1, pool=4)
        try:
            digest = str(json.loads(s3.get_object(Bucket=self._bucket, Key=self._key)["Body"].read())["digest"])
        except (BotoCoreError, ClientError, OSError, ValueError, KeyError, TypeError) as error:
            # Not known is no other model: all workers stay.
            if not self._has_failed:
                log.warning("model unknown", extra={"model": f"s3://{self._bucket}/{self._key}", "reason": str(error)})
            self._has_failed = True
            return None
        self._has_failed = False
        return digest
