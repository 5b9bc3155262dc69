"""The table of what must not happen in docs/scaler.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "scaler.md").read_text()
ROWS = {int(row[0]): row[1] for row in re.findall(r"^\| (\d+) \| [^|]+ \| (`test_[^|]+) \|$", PAGE, re.MULTILINE)}


def found(command: str) -> list[str]:
    """Return the tests that a command of the table would run."""
    file, _, word = command.partition(" -k ")
    (path,) = TESTS.rglob(file)
    return [name for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE) if word in name]


@pytest.mark.parametrize("row", range(1, 23))
def test_every_row_of_what_must_not_happen_has_tests_one_of_which_names_it(row: int) -> None:
    names = {command: found(command) for command in re.findall(r"`([^`]+)`", ROWS[row])}

    assert all(names.values()), names
    assert any(name.startswith(f"test_row_{row}_") for each in names.values() for name in each)
