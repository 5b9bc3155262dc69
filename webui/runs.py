"""Sets of image numbers as runs: what of a job was seen or delivered, short enough for an event's id."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Self

MOST_CHARACTERS = 256
#: No number is larger: an id that comes back from outside cannot make us count on.
MOST = 1_000_000

_TEXT = re.compile(r"(\d{1,7})|((?:\d{1,7}-\d{1,7})(?:,\d{1,7}-\d{1,7})*)")


class Runs:
    """A set of numbers from 0, kept as rising runs ``[start, end)`` that do not touch."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._count = 0
        for number in numbers:
            self.add(number)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._ends[at]

    @property
    def frontier(self) -> int:
        """The smallest number that is not in it."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def add(self, number: int) -> bool:
        """Put a number in; return False if it was in already."""
        at = bisect_right(self._starts, number) - 1
        if at >= 0 and number < self._ends[at]:
            return False
        touches_left = at >= 0 and self._ends[at] == number
        touches_right = at + 1 < len(self._starts) and self._starts[at + 1] == number + 1
        if touches_left and touches_right:
            self._ends[at] = self._ends.pop(at + 1)
            del self._starts[at + 1]
        elif touches_left:
            self._ends[at] = number + 1
        elif touches_right:
            self._starts[at + 1] = number
        else:
            self._starts.insert(at + 1, number)
            self._ends.insert(at + 1, number + 1)
        self._count += 1
        return True

    def text(self) -> str:
        """Return an event's id: ``961`` for all below it, else runs (``0-6,8-960``), those that fit in 256 characters.

        What does not fit is left out from above: then more is sent again than need be, which is harmless.
        """
        if not self._starts or (len(self._starts) == 1 and self._starts[0] == 0):
            return str(self.frontier)
        parts: list[str] = []
        length = -1
        for start, end in zip(self._starts, self._ends, strict=True):
            part = f"{start}-{end - 1}"
            length += len(part) + 1
            if length > MOST_CHARACTERS:
                break
            parts.append(part)
        return ",".join(parts)

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Return the set behind an id; anything that is none, or not rising, stands for nothing delivered."""
        runs = cls()
        match = _TEXT.fullmatch(text or "") if len(text or "") <= MOST_CHARACTERS else None
        if match is None:
            return runs
        spans = [(0, int(match[1]))] if match[1] else [_span(part) for part in match[2].split(",")]
        last = -1
        for start, end in spans:
            if not last < start < end <= MOST:
                return cls()
            runs._starts.append(start)
            runs._ends.append(end)
            runs._count += end - start
            last = end
        return runs


def _span(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last) + 1
