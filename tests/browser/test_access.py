"""For everybody: axe at three widths in both themes, nothing sideways, little weight, keys, the policy."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import CUT, WIDTHS, Browsing, Visit
from playwright.sync_api import Browser, Response
from serving import Site, compressed_bytes
from webpages import Answers
from workers import picture

STATIC = Path(__file__).resolve().parents[2] / "webui" / "static"
AXE = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}}
#: Every state, and the width it is looked at in each run; the other widths are slow.
STATES = {
    "empty": "phone",
    "uploading": "desk",
    "waiting": "phone",
    "running": "tablet",
    "finished": "desk",
    "failed": "phone",
    "groups": "tablet",
    "dialog": "phone",
    "keys": "desk",
    "menu": "phone",
    "model": "tablet",
    "api": "desk",
    "error": "tablet",
    "image": "phone",
    "login": "phone",
}
EACH = [
    # The reference is long: ten seconds for axe.
    pytest.param(state, size, marks=() if size == usual and state != "api" else pytest.mark.slow)
    for state, usual in STATES.items()
    for size in WIDTHS
]


def write_pictures(folder: Path, *, damaged: int = -1) -> list[Path]:
    paths = [folder / f"{number}.jpg" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(number) if number != damaged else picture(number)[:600])
    return paths


@pytest.fixture(scope="module")
def addresses(site: Site, idle: Site, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where each state is found: of a finished job of six with one failure, of one that runs, and of one that waits."""
    paths = write_pictures(tmp_path_factory.mktemp("photos"), damaged=2)
    with Browsing(browser) as browsing:
        visit = browsing.open(site.url)
        visit.choose(paths)
        visit.until_finished()
        job = visit.page.url
    waiting, running = (idle.workers.client.recognize(paths).id for _ in range(2))
    Answers(idle.workers.cloud).answer(running, 0, 1, 2)
    # Beside the page that no test waits for: two processes share the news.
    with idle.beside(IRS_WEB_TOKEN="t" * 40) as closed:
        yield {
            "empty": site.url,
            "uploading": idle.url,
            "waiting": f"{idle.url}/jobs/{waiting}",
            "running": f"{idle.url}/jobs/{running}",
            "finished": job,
            "failed": f"{job}?show=failed",
            "groups": f"{job}?group=label",
            "dialog": f"{job}#1",
            "keys": job,
            "menu": job,
            "model": f"{site.url}/model",
            "api": f"{site.url}/api",
            "error": f"{site.url}/errors/too_large",
            "image": f"{job}/images/1",
            "login": f"{closed.url}/login?wrong=1",
        }


def open_state(browsing: Browsing, addresses: dict[str, str], state: str, size: str, folder: Path) -> Visit:
    """Open the page in one of its states."""
    # Axe is put into the page, which its policy would forbid.
    visit = browsing.open(addresses[state], size=size, bypass_csp=True)
    wait: dict[str, Callable[[], Any]] = {
        "uploading": lambda: visit.tiles("sending") and visit.tiles("waiting") and visit.pictures(6),
        "waiting": lambda: "No worker is running" in visit.text("#subline"),
        "running": lambda: (3, 3) == (len(visit.tiles("ok")), len(visit.tiles("waiting"))),
        "failed": lambda: len(visit.tiles("failed")) == 1,
        "groups": lambda: visit.page.locator("#groups section").count(),
        "dialog": lambda: visit.page.locator("#detail-labels tr").count(),
    }
    if state == "uploading":
        visit.hold(r"/images/[1-9]\?")
        visit.choose(write_pictures(folder))
    if state in ("finished", "failed", "groups", "dialog", "keys", "menu"):
        visit.until(lambda: "(6)" in visit.text("#show option"))
    if state in wait:
        visit.until(wait[state])
    if state == "keys":
        visit.show_keys()
    if state == "menu":
        visit.page.click(".menu summary")
    return visit


@pytest.mark.parametrize(("state", "size"), EACH)
def test_axe_finds_nothing_in_either_theme(addresses: dict[str, str], browsing: Browsing, state: str, size: str, tmp_path: Path):
    visit = open_state(browsing, addresses, state, size, tmp_path)

    found = {}
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        for one in Axe().run(visit.page, options=AXE).response["violations"]:
            found[scheme, one["id"]] = [node["html"][:160] for node in one["nodes"]][:3]

    assert {} == found


@pytest.mark.parametrize("state", ["empty", "uploading", "finished", "dialog", "model", "api", "image", "login"])
def test_nothing_scrolls_sideways_at_any_width(addresses: dict[str, str], browsing: Browsing, state: str, tmp_path: Path):
    visit = open_state(browsing, addresses, state, "phone", tmp_path)

    widest = {}
    for width in (320, 360, 768, 1024, 1440):
        visit.page.set_viewport_size({"width": width, "height": 800})
        widest[width] = visit.page.evaluate("document.documentElement.scrollWidth")

    assert {} == {width: found for width, found in widest.items() if found > width}


@pytest.mark.parametrize("state", ["empty", "finished"])
def test_a_page_weighs_at_most_30_kb_in_8_requests_of_its_own(addresses: dict[str, str], browsing: Browsing, state: str):
    """Its files; what it asks the API for, and pictures, come on top."""
    visit = browsing.open("about:blank")
    bodies: dict[str, bytes] = {}

    def note(answer: Response) -> None:
        if not re.search(r"/samples/|/api/", answer.url):
            bodies[answer.url] = answer.body()

    visit.page.on("response", note)

    visit.page.goto(addresses[state], wait_until="networkidle")

    weight_bytes = sum(compressed_bytes(body) for body in bodies.values())
    sys.stdout.write(f"{state}: {len(bodies)} requests, {weight_bytes / 1000:.1f} KB compressed\n")
    assert all(url.startswith(addresses["empty"]) for url in bodies)
    assert 8 >= len(bodies)
    assert 30_000 >= weight_bytes


def test_scripts_make_no_html_of_text():
    found = [
        path.name
        for path in STATIC.glob("*.js")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", ".style.")
        if word in path.read_text()
    ]

    assert [] == found


def test_counts_are_told_to_screen_readers_and_the_end_is_spoken(site: Site, browsing: Browsing, tmp_path: Path):
    (tmp_path / "one.jpg").write_bytes(picture(1))
    visit = browsing.open(site.url)

    visit.choose([tmp_path / "one.jpg"])

    visit.until(lambda: visit.text("#say") == "All 1 image recognised")
    assert "status" == visit.page.get_attribute("#say", "role")


def test_with_a_token_the_page_is_used_after_signing_in_and_leads_to_where_one_wanted(
    idle: Site, browsing: Browsing, tmp_path: Path
):
    (tmp_path / "one.jpg").write_bytes(picture(1))
    with idle.beside(IRS_WEB_TOKEN="t" * 40) as closed:
        visit = browsing.open(f"{closed.url}/?sort=name")
        # These answers hold no picture; and the page is left while it listens.
        visit.expect(*CUT, "404")
        visit.page.fill("#token", "t" * 40)
        visit.page.click("text=Log in >> nth=-1")
        visit.until(lambda: visit.page.url == f"{closed.url}/?sort=name")

        visit.choose([tmp_path / "one.jpg"])
        visit.until(lambda: visit.job_id)
        Answers(idle.workers.cloud).answer(visit.job_id, 0)

        visit.until_finished()
        assert not visit.page.evaluate("document.cookie")


def test_the_first_tab_leads_to_the_pictures(site: Site, browsing: Browsing):
    visit = browsing.open(site.url)

    visit.page.keyboard.press("Tab")

    assert "Skip to the pictures" == visit.page.evaluate("document.activeElement.textContent")
    visit.page.keyboard.press("Enter")
    visit.until(lambda: visit.page.evaluate("document.activeElement?.id") == "main")
