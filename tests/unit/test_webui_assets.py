"""The scripts and the style of the page as they are sent: nothing is lost but comments."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import webui
from webui.assets import script, style

STATIC = Path(webui.__file__).parent / "static"
#: Those that are files of their own: set before the page is drawn, of another page, of a thread.
APART = {"theme", "copy", "thumb.worker"}
MODULES = {path.stem for path in STATIC.glob("*.js")} - APART


def test_every_module_is_in_it_once_and_nothing_is_left_to_be_fetched() -> None:
    made = re.findall(r"^\$modules\.(\w+) = ", script(), re.MULTILINE)

    assert sorted(MODULES) == sorted(made)
    assert [] == re.findall(r"^(?:import|export) .*|\bimport\(.*", script(), re.MULTILINE)
    taken = re.findall(r'\$take\("(\w+)"\)|"(\w+)"\)\.then\(\$take\)', script())
    assert MODULES == {at_once or later for at_once, later in taken}


def test_what_a_module_exports_it_gives() -> None:
    for name in MODULES:
        exported = re.findall(
            r"^export (?:async )?(?:function|const|class) (\w+)", (STATIC / f"{name}.js").read_text(), re.MULTILINE
        )

        given = (
            re.split(r"\n\};\n(?=\$)", script().partition(f"$modules.{name} = ")[2])[0]
            .rpartition("return { ")[2]
            .removesuffix(" };")
        )

        assert exported == [one for one in given.split(", ") if one], name


@pytest.mark.parametrize("name", sorted(MODULES))
def test_comments_of_a_module_can_be_told_from_its_code(name: str) -> None:
    """They are found by their form: one that stands behind code, or a string that looks like one, would go wrong."""
    text = (STATIC / f"{name}.js").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("//", "*", "/**"))]

    assert [] == [line for line in lines if re.search(r"\s//\s", line)]
    assert text.count("/*") == text.count("/**") == len(re.findall(r"\*/", text))


def test_it_is_whole() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("There is no node on this machine to read the script; Chromium reads it in tests/browser.")

    done = subprocess.run([node, "--input-type=module", "--check"], input=script(), capture_output=True, text=True, check=False)

    assert "" == done.stderr


def test_the_style_holds_all_its_rules_and_no_comment() -> None:
    """As a browser reads it: what stands between braces, whatever blanks are around."""

    def words(text: str) -> list[str]:
        return re.findall(r"[^\s{};,]+|[{};,]", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))

    assert words((STATIC / "page.css").read_text()) == words(style())
    assert "/*" not in style()
    assert len(style().encode()) < (STATIC / "page.css").stat().st_size
