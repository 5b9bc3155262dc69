"""What the fleet costs, added up for each day (UTC) from the instances that are seen to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from scaler.book import Money

HOUR_S = 3600.0
DAY_S = 86_400.0


def added(spent: Money, prices_per_hour: Sequence[float], *, wall: float, since_s: float | None) -> Money:
    """Return ``spent`` with the time since the last look at instances of these prices; a new day begins at nothing.

    Args:
        prices_per_hour: dollars of each instance that runs; 0 for one whose price is not known.
        wall: Unix seconds.
        since_s: seconds since the last look of this process; None at its first one, when the clock on the wall tells.
    """
    # Without a look of our own: an earlier scaler's instances went on, up to a day.
    gap_s = (wall - spent.wall if spent.wall else 0.0) if since_s is None else since_s
    gap_s = min(max(gap_s, 0.0), DAY_S)
    today = datetime.fromtimestamp(wall, UTC)
    day = today.date().isoformat()
    if day != spent.day:
        midnight = today.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        spent, gap_s = Money(day=day), min(gap_s, wall - midnight)
    return replace(
        spent,
        usd=spent.usd + sum(prices_per_hour) * gap_s / HOUR_S,
        instance_s=spent.instance_s + len(prices_per_hour) * gap_s,
        wall=wall,
    )
