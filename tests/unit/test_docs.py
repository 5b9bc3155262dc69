"""What the documents say is what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from irs import settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_readme_holds_the_table_of_all_settings() -> None:
    """Make it anew with ``python -m irs.settings``."""
    shown = README.partition("<!-- settings: python -m irs.settings -->\n")[2].partition("\n<!-- end of settings -->")[0]

    assert settings.table() == shown


def test_the_readme_names_only_commands_that_are_there() -> None:
    from irs.cli import app

    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}

    assert set(re.findall(r"\birs (up|recognize|worker|status|provision|models|dlq|bench)\b", README)) <= known


def test_the_readme_names_only_make_targets_that_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z-]+)\b", README)) <= targets


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.stem for path in (ROOT / "irs").iterdir() if not path.name.startswith(("_", "py.typed"))}

    assert set() == {room for room in rooms if f"irs/{room}" not in text}


def test_the_readme_says_as_the_project_does_which_python_it_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert "Python " + project["requires-python"].removeprefix(">=") in README
