"""``irs dlq list|redrive``."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Annotated

import typer

from irs.cli.outcome import answer, note
from irs.cli.tables import show_table

app = typer.Typer(help="What no worker could finish: the dead-letter queue.", no_args_is_help=True)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="Most messages to show.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each message.")] = False,
) -> None:
    """List the messages; all stay in the queue."""
    from irs.cli.service import find_cloud
    from irs.monitoring.dead_letters import list_dead_letters

    letters = list_dead_letters(find_cloud(), limit=limit)
    if as_json:
        for letter in letters:
            answer(json.dumps(dataclasses.asdict(letter), ensure_ascii=False))
        return
    if not letters:
        note("The dead-letter queue is empty.")
        return
    show_table(
        ("task id", "task", "file", "code", "sent"),
        [
            (one.task_id or f"message {one.message_id}", one.task, one.name or one.image, one.code, _when(one.sent))
            for one in letters
        ],
    )


@app.command()
def redrive(
    code: Annotated[
        str | None, typer.Option(help="Only tasks whose record failed with this code, such as internal.", show_default=False)
    ] = None,
) -> None:
    """Move the messages back to the request queue, failed records removed; answer how many."""
    from irs.cli.service import find_cloud
    from irs.monitoring.dead_letters import redrive as move

    moved = move(find_cloud(), code=code, on_moved=lambda letter: note(f"moved {letter.task_id or letter.message_id}"))
    answer(str(len(moved)))


def _when(sent: float | None) -> str | None:
    return None if sent is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(sent))
