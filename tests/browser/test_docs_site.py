"""The site of docs/ as ``make docs`` builds it: whole without a network, readable on a phone, by everybody."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
#: Tables that scroll are reached by the keyboard in Chromium, Firefox and Safari as they are; axe does not know it.
AXE = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    "rules": {"scrollable-region-focusable": {"enabled": False}},
}
#: One of each kind; all of them where there is time.
FEW = ("index", "reference/settings")
ALL = tuple(sorted(str(page.relative_to(ROOT / "docs").with_suffix("")) for page in (ROOT / "docs").rglob("*.md")))


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[str]:
    """Where the site is served that was built just now."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("MkDocs is not installed: `pip install irs[docs]` brings it.")
    folder = tmp_path_factory.mktemp("docs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == built.returncode, built.stderr
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A phone that has the site and no other network; what it asks elsewhere or complains about fails the test."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    wrong: list[str] = []
    opened = context.new_page()
    opened.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else wrong.append(asked.url))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    yield opened
    context.close()
    assert [] == wrong


@pytest.mark.parametrize("name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in ALL])
def test_a_page_is_whole_without_a_network_and_fits_every_width(page: Page, address: str, name: str) -> None:
    for width in (320, 768, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        # Anew each time: the theme moves its drawer and its search when a width is passed.
        page.goto(f"{address}/{name}.html", wait_until="load")

        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FEW, "tutorial", "guarantees", "scaler"])
def test_axe_finds_nothing_on_the_site_in_either_theme(page: Page, address: str, name: str) -> None:
    found = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{address}/{name}.html", wait_until="load")
        for one in Axe().run(page, options=AXE).response["violations"]:
            found[scheme, one["id"]] = [node["html"][:160] for node in one["nodes"]][:3]

    assert {} == found


def test_a_setting_is_found_by_the_search(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 844})
    page.goto(f"{address}/index.html", wait_until="load")

    box = page.get_by_role("textbox", name="Search")
    box.click()
    # It hears keys alone, and them once its index is read.
    page.get_by_text("Type to start searching").wait_for()
    box.press_sequentially("IRS_SCALER_CAP")

    found = page.locator(".md-search-result__link", has_text="IRS_SCALER_CAP").first
    found.wait_for()
    assert "settings.html" in (found.get_attribute("href") or "")
