"""Rows for people: a table on a terminal, aligned lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from irs.cli.outcome import answer


def show_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write the rows under their titles to standard output; None is an empty cell."""
    cells = [[printable("" if cell is None else str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _show_rich(titles, cells)
        return
    for line in aligned([title.upper() for title in titles], cells):
        answer(line)


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for the titles and each row, columns two spaces apart, nothing after the last cell."""
    lines = [list(titles), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def clear_screen() -> None:
    """Make room for a table that is shown anew."""
    from rich.console import Console

    Console().clear()


def printable(text: str) -> str:
    """Return ``text`` with control characters spelled out: a file's name must not steer the terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text)


def _show_rich(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*titles, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        # Text, not str: labels and names may hold square brackets.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
