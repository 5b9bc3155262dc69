"""Which objects of the emulator's S3 are worth an event."""

from __future__ import annotations

from typing import Any

import pytest

RULES = """<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><QueueConfiguration>
<Id>drops</Id><Queue>arn:aws:sqs:us-east-1:000000000000:irs-drops</Queue><Event>s3:ObjectCreated:*</Event>
<Filter><S3Key><FilterRule><Name>prefix</Name><Value>drop/</Value></FilterRule></S3Key></Filter>
</QueueConfiguration></NotificationConfiguration>"""
EVENT_BRIDGE = "<NotificationConfiguration><EventBridgeConfiguration/></NotificationConfiguration>"


def test_events_are_made_where_a_rule_asks_for_them_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from ministack.services import s3

    from irs.local.s3 import patch

    fired: list[tuple[Any, ...]] = []
    monkeypatch.setattr(s3, "_fire_s3_event_async", lambda *about, **more: fired.append((*about, more)))
    monkeypatch.setattr(s3, "_bucket_notifications", {"input": RULES, "all": EVENT_BRIDGE})
    patch()

    s3._fire_s3_event_async("input", "drop/cat.jpg", "s3:ObjectCreated:Put", 3, etag="e")
    s3._fire_s3_event_async("input", "jobs/1/0/cat.jpg", "s3:ObjectCreated:Put", 3)
    s3._fire_s3_event_async("input", "drop/cat.jpg", "s3:ObjectRemoved:Delete")
    s3._fire_s3_event_async("output", "drop/cat.jpg", "s3:ObjectCreated:Put")
    s3._fire_s3_event_async("all", "any", "s3:ObjectRemoved:Delete")

    assert [
        ("input", "drop/cat.jpg", "s3:ObjectCreated:Put", 3, {"etag": "e"}),
        ("all", "any", "s3:ObjectRemoved:Delete", {}),
    ] == fired
