"""``irs trace``."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from irs.cli.options import AsJson, InstanceType, PricePerHour
from irs.cli.outcome import answer

if TYPE_CHECKING:
    from irs.monitoring.trace import Step, Trace

BAR_CHARACTERS = 40


def trace(
    id: Annotated[
        str,
        typer.Argument(metavar="ID", help="JOB/NUMBER, or the id of a task: JOB.NUMBER, or a plain call's.", show_default=False),
    ],
    instance_type: InstanceType = "",
    price_per_hour: PricePerHour = None,
    as_json: AsJson = False,
) -> None:
    """Show where the time of one image went, who answered it, in which batch, and what it cost."""
    from irs.cli.service import find_cloud
    from irs.monitoring.cost import price_of
    from irs.monitoring.trace import read_id, read_trace

    cloud, task_id = find_cloud(), read_id(id)
    price = price_of(cloud, instance_type=instance_type, per_hour=price_per_hour)
    # Asked first: it tells a missing stack from a missing image.
    cloud.queue_url(cloud.settings.requests_queue)
    found = read_trace(cloud, task_id, price=price)
    if as_json:
        answer(json.dumps(found.to_json(), ensure_ascii=False))
        return
    for line in lines_of(found, bars=sys.stdout.isatty()):
        answer(line)


def lines_of(found: Trace, *, bars: bool) -> list[str]:
    """Return the story as lines; ``bars``: with a bar a stage, to scale."""
    said = found.label or (f"{found.error.code}: {found.error.message}" if found.error else "no label reached the minimum")
    lines = [f"{found.task_id}  {found.name or '(no name)'}  {found.status}: {said}", found.summary]
    if found.sent_at is not None:
        lines.append(f"Sent {datetime.fromtimestamp(found.sent_at, UTC):%Y-%m-%d %H:%M:%S} UTC.")
    whole_s = found.total_s or sum(step.took_s for step in found.steps)
    for step in found.steps:
        about = "about " if step.is_about else ""
        line = f"  {step.stage:9}{about + f'{step.took_s:.4f} s':>17}"
        lines.append(f"{line}  {_bar(step, whole_s)}".rstrip() if bars else line)
    if found.total_s is not None:
        lines.append(f"  {'in all':9}{f'{found.total_s:.4f} s':>17}")
    worker = (
        "worker unknown: set IRS_PRICE_PER_HOUR"
        if found.usd_worker is None
        else f"worker ${found.usd_worker:.8f}, {found.price_from}"
    )
    lines.append(f"Cost ${found.usd:.8f} with requests and storage ({worker}; batch mates share its time).")
    return lines


def _bar(step: Step, whole_s: float) -> str:
    if whole_s <= 0:
        return ""
    # Stages are told in millionths of a second: of less than that a part may be longer than its whole.
    begin = min(BAR_CHARACTERS - 1, round(BAR_CHARACTERS * min(1.0, step.at_s / whole_s)))
    # What took any time is seen, at least as a hair.
    length = max(1, round(BAR_CHARACTERS * min(1.0, step.took_s / whole_s))) if step.took_s > 0 else 0
    return " " * begin + "█" * min(length, BAR_CHARACTERS - begin)
