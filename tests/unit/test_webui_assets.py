"""The scripts and the style of the page as they are sent: nothing is lost but comments."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import webui
from webui.assets import script, style

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize(("names", "lib"), [(["app", "copy", "theme"], "dom,dom.iterable"), (["thumb.worker"], "webworker")])
def test_the_types_in_the_comments_hold(names: list[str], lib: str) -> None:
    """From the first module on: what it imports is checked with it."""
    tsc = ROOT / "tests/js/node_modules/.bin/tsc"
    if not tsc.is_file():
        pytest.skip("There is no TypeScript here: `npm ci --prefix tests/js` brings it, then the types are checked.")
    how = "--noEmit --allowJs --checkJs --strict --skipLibCheck --target es2023 --module es2022 --moduleResolution bundler"

    done = subprocess.run(
        [tsc, *how.split(), "--lib", f"es2023,{lib}", *(STATIC / f"{name}.js" for name in names)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("", 0) == (done.stdout, done.returncode)


def test_the_style_holds_all_its_rules_and_no_comment() -> None:
    """As a browser reads it: what stands between braces, whatever blanks are around."""

    def words(text: str) -> list[str]:
        return re.findall(r"[^\s{};,]+|[{};,]", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))

    assert words((STATIC / "page.css").read_text()) == words(style())
    assert "/*" not in style()
    assert len(style().encode()) < (STATIC / "page.css").stat().st_size
