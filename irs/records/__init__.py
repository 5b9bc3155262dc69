"""What travels: options, record, news, beat, and the ids and keys they hang on.

Frozen dataclasses with JSON both ways, pure: nothing here reads a clock or the network except
:func:`new_job_id`. Times are Unix seconds, durations seconds, sizes bytes or pixels.
"""

from __future__ import annotations

import json

from irs.records._json import _Json
from irs.records.beat import Beat, Order, Phase
from irs.records.card import CardParent, ModelCard, card_key
from irs.records.drops import DROPS, RESULTS, TASKS, drop_name, drop_of_record_key, drop_task_id, result_key
from irs.records.keys import (
    MAX_NAME_CHARACTERS,
    SCALER_STATE_KEY,
    TOMBSTONES,
    beat_key,
    image_key,
    job_cancelled_key,
    job_prefix,
    manifest_key,
    new_job_id,
    number_of_image_key,
    number_of_record_key,
    open_key,
    order_key,
    read_tombstone_key,
    record_key,
    safe_id,
    safe_name,
    split_task_id,
    task_id,
    time_of_ulid,
    tombstone_key,
    ulid_at,
)
from irs.records.record import (
    MAX_NEWS_BYTES,
    MAX_NEWS_RESULTS,
    MAX_RECORD_BYTES,
    VERSION,
    BatchFacts,
    Fault,
    ImageFacts,
    JobOpen,
    Label,
    Manifest,
    ModelFacts,
    News,
    NewsItem,
    Options,
    Record,
    Status,
    Timing,
    cancelled_record,
    unreadable_record,
)

__all__ = [
    "DROPS",
    "MAX_NAME_CHARACTERS",
    "MAX_NEWS_BYTES",
    "MAX_NEWS_RESULTS",
    "MAX_RECORD_BYTES",
    "RESULTS",
    "SCALER_STATE_KEY",
    "TASKS",
    "TOMBSTONES",
    "VERSION",
    "BatchFacts",
    "Beat",
    "CardParent",
    "Fault",
    "ImageFacts",
    "JobOpen",
    "Label",
    "Manifest",
    "ModelCard",
    "ModelFacts",
    "News",
    "NewsItem",
    "Options",
    "Order",
    "Phase",
    "Record",
    "Status",
    "Timing",
    "_Json",
    "beat_key",
    "cancelled_record",
    "card_key",
    "drop_name",
    "drop_of_record_key",
    "drop_task_id",
    "fingerprint",
    "image_key",
    "job_cancelled_key",
    "job_prefix",
    "manifest_key",
    "new_job_id",
    "number_of_image_key",
    "number_of_record_key",
    "open_key",
    "order_key",
    "read_tombstone_key",
    "record_key",
    "result_key",
    "safe_id",
    "safe_name",
    "split_task_id",
    "task_id",
    "time_of_ulid",
    "tombstone_key",
    "ulid_at",
    "unreadable_record",
]


def fingerprint(value: object) -> str:
    """Return the canonical JSON of ``value``: equal values give equal text, for hashes and comparisons."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
