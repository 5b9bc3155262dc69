"""What the first contact with S3 met, said in one sentence that an operator can act on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import stamina

from irs.cloud import Cloud
from irs.errors import Forbidden, MissingResource, NotFound, PassingError, SetupError, Unreachable

T = TypeVar("T")


@contextmanager
def using_bucket(cloud: Cloud, bucket: str, *, is_first: bool = False) -> Iterator[None]:
    """Turn errors of a bucket that cannot be used into SetupErrors; ``is_first``: no answer at all is one, too."""
    where = cloud.settings.endpoint_url or "AWS"
    try:
        yield
    except NotFound:
        raise MissingResource(f"Bucket {bucket} is not there: run `irs provision` first.") from None
    except Forbidden:
        raise SetupError(
            f"These credentials may not use bucket {bucket} at {where}: allow s3:GetObject, s3:PutObject and s3:ListBucket."
        ) from None
    except PassingError as error:
        if not is_first:
            raise
        raise Unreachable(f"S3 cannot be reached at {where}: check IRS_ENDPOINT_URL and the network ({error}).") from None


def persistently(call: Callable[[], T]) -> T:
    """Call again with back-off for up to 30 s while something passing is in the way."""
    return stamina.RetryingCaller(attempts=None, timeout=30.0, wait_max=5.0).on(PassingError)(call)
