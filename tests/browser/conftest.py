"""A real Chromium on a real page: embedded cloud, a worker with a small model, and ``irs web`` as processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Browsing, Visit
from playwright.sync_api import Browser, sync_playwright
from serving import Site, site_on_a_stack
from workers import picture

from irs.local import EmbeddedCloud


@pytest.fixture(scope="package")
def chromium() -> str:
    """Where Chromium is; skips where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("There is no Chromium on this machine: `apt-get install chromium` brings one, then these tests run.")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One Chromium for a module.

    Not for the session: while Playwright is open its event loop counts as running in this thread, and no test
    outside this folder could call ``asyncio.run``.
    """
    with sync_playwright() as playwright:
        # A container has no user namespaces for the sandbox, and little shared memory.
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture(scope="package")
def site(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Site]:
    """The page with one worker that is ready: for all of this folder, since jobs do not meet. Nobody kills it."""
    with site_on_a_stack(embedded, tmp_path_factory.mktemp("site")) as made:
        made.workers.start()
        yield made


@pytest.fixture(scope="package")
def idle(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Site]:
    """The page without a worker: what is handed in waits, until a test answers it itself."""
    with site_on_a_stack(embedded, tmp_path_factory.mktemp("idle")) as made:
        yield made


@pytest.fixture
def lonely(embedded: EmbeddedCloud, tmp_path: Path, chromium: str) -> Iterator[Site]:
    """The page on a stack of the test's own, without a worker: to be killed."""
    with site_on_a_stack(embedded, tmp_path) as made:
        yield made


@pytest.fixture
def browsing(browser: Browser) -> Iterator[Browsing]:
    """Opens pages, and at the end asserts that none of them broke its policy or logged an error."""
    with Browsing(browser) as made:
        yield made


@pytest.fixture
def visit(site: Site, browsing: Browsing) -> Visit:
    """The start page, open."""
    return browsing.open(site.url)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes so many different pictures into a folder; returns their paths."""

    def write(count: int, folder: str = "photos", *, first: int = 0) -> list[Path]:
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        paths = [place / f"photo {number}.jpg" for number in range(first, first + count)]
        for number, path in enumerate(paths, start=first):
            path.write_bytes(picture(number))
        return paths

    return write
