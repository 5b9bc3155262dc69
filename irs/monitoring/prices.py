"""What AWS asks, in one table with its date: list prices of us-east-1 in dollars, without free tiers and discounts.

Prices change seldom and differ by region; who knows better sets ``IRS_PRICE_PER_HOUR``, or asks with ``--type``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: When they were last compared, and where they hold.
DATE, REGION = "2026-06", "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Dollars; of requests one by one, of storage a GiB for a month of 30 days."""

    s3_write: float
    s3_read: float
    sqs_request: float
    s3_gib_month: float


#: S3 Standard (writes: PUT, LIST; reads: GET, HEAD; DELETE is free) and SQS standard queues.
LIST = Prices(s3_write=5.00e-6, s3_read=0.40e-6, sqs_request=0.40e-6, s3_gib_month=0.023)

#: An hour of Linux on demand, of the size ``large``; other sizes of a family are multiples of it.
LARGE_PER_HOUR = {
    "c6a": 0.0765,
    "c6i": 0.0850,
    "c7a": 0.10264,
    "c7g": 0.0725,
    "c7i": 0.08925,
    "c8g": 0.07976,
    "m7a": 0.11592,
    "m7g": 0.0816,
    "m7i": 0.1008,
    "t3": 0.0832,
    "t3a": 0.0752,
    "t4g": 0.0672,
}
#: Types whose sizes are no multiples of each other.
OTHERS_PER_HOUR = {"g4dn.xlarge": 0.526, "g5.xlarge": 1.006, "g6.xlarge": 0.8048}

_TYPE = re.compile(r"([a-z0-9]+)\.(?:(\d*)x)?large")


def find_price(instance_type: str) -> float | None:
    """Return the dollars of one hour of an instance type on demand; None of a type that is not in the table."""
    if instance_type in OTHERS_PER_HOUR:
        return OTHERS_PER_HOUR[instance_type]
    match = _TYPE.fullmatch(instance_type)
    large = LARGE_PER_HOUR.get(match[1]) if match else None
    if match is None or large is None:
        return None
    # large, xlarge, 2xlarge, ...: 1, 2, 4, ... times.
    return large * (1 if match[2] is None else 2 * int(match[2] or 1))


def table() -> str:
    """Return the prices as Markdown tables."""
    rows = [
        f"List prices of {REGION}, {DATE}, in dollars.",
        "",
        "| what | price |",
        "| --- | --- |",
        f"| a million S3 writes (PUT, LIST) | {1e6 * LIST.s3_write:.2f} |",
        f"| a million S3 reads (GET, HEAD) | {1e6 * LIST.s3_read:.2f} |",
        f"| a million SQS requests | {1e6 * LIST.sqs_request:.2f} |",
        f"| a GiB in S3 for a month | {LIST.s3_gib_month:g} |",
        *(f"| an hour of {family}.large; xlarge twice, 2xlarge four times | {usd:g} |" for family, usd in LARGE_PER_HOUR.items()),
        *(f"| an hour of {name} | {usd:g} |" for name, usd in OTHERS_PER_HOUR.items()),
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())  # noqa: T201
