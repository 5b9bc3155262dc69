"""What is read from the queue of S3's events."""

from __future__ import annotations

import pytest

from irs.drops.events import read_events
from irs.settings import read_settings


@pytest.mark.parametrize(
    "body",
    ["{", "[]", "null", "{}", '{"Records": [1]}', '{"Records": [{"eventName": "ObjectCreated:Put"}]}', "[" * 100_000],
    ids=["broken", "list", "null", "empty", "number", "bare", "deep"],
)
def test_what_is_no_message_of_s3_says_so(body: str) -> None:
    with pytest.raises(ValueError, match=r"no message of S3|Expecting"):
        read_events(body, read_settings())
