"""What the documents say is what the code does."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """The reference as the code tells it now."""
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "tools" / "make_reference.py")
    assert spec
    assert spec.loader
    tool: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    texts: dict[str, str] = tool.texts()
    return texts


def test_the_reference_is_what_the_code_says(made: dict[str, str]) -> None:
    stored = {page.name: page.read_text() for page in REFERENCE.iterdir()}

    assert made == stored, "run `python tools/make_reference.py`"


def test_the_reference_tells_every_setting_and_every_command(made: dict[str, str]) -> None:
    from irs.cli import app
    from irs.settings import Settings

    told = set(re.findall(r"^\| `(IRS_\w+)` \|", made["settings.md"], re.MULTILINE))
    assert {f"IRS_{name.upper()}" for name in Settings.model_fields} == told
    for command in app.registered_commands:
        assert f"\n## irs {command.name}\n" in made["commands.md"]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            name = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
            assert f"\n### irs {group.name} {name}\n" in made["commands.md"]


def test_the_reference_tells_every_metric_that_dashboards_and_alerts_ask_for(made: dict[str, str]) -> None:
    files = [*(ROOT / "deploy" / "grafana").glob("*.json"), ROOT / "deploy" / "prometheus" / "alerts.yaml"]
    queries = " ".join(re.findall(r'expr"?: (.+)', "\n".join(file.read_text() for file in files)))
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\b(?:irs|celery)_[a-z_]+[a-z]\b", queries)}

    told = set(re.findall(r"^\| `(\w+)` \|", made["metrics.md"], re.MULTILINE))
    assert asked
    assert set() == asked - told


@pytest.mark.parametrize("page", ["guarantees.md", "security.md"])
def test_a_promise_names_tests_that_are_there(page: str) -> None:
    named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", (ROOT / "docs" / page).read_text())

    assert named
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}, file


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.stem for path in (ROOT / "irs").iterdir() if not path.name.startswith(("_", "py.typed"))}

    assert set() == {room for room in rooms if f"irs/{room}" not in text}


@pytest.mark.parametrize("page", [README, (ROOT / "docs" / "tutorial.md").read_text()], ids=["readme", "tutorial"])
def test_a_first_page_says_as_the_project_does_which_python_it_needs(page: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert "Python " + project["requires-python"].removeprefix(">=") in page
