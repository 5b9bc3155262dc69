"""What a person does on the page, in words: open, hand in, read, wait. Each visit remembers what the browser complained of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Route
from waiting import eventually

#: Of the smallest phone, a tablet and a desk.
WIDTHS = {"phone": (360, 740), "tablet": (768, 1024), "desk": (1440, 900)}
SETTLED_S = 60.0
#: What Chromium writes by itself when a connection ends.
CUT = ("ERR_INTERNET_DISCONNECTED", "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE_CHUNKED_ENCODING",
       "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED", "ERR_NETWORK_CHANGED", "ERR_ABORTED", "ERR_FAILED")  # fmt: skip


@dataclass
class Visit:
    """One page in one browser."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    #: Complaints with one of these words in them were asked for by the test.
    expected: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def expect(self, *words: str) -> None:
        """Take complaints with these words for part of the test."""
        self.expected += words

    @property
    def unexpected(self) -> list[str]:
        return [one for one in self.complaints if not any(word in one for word in self.expected)]

    # Hand in

    def choose(self, paths: Sequence[Path], *, chooser: str = "#pick-files") -> None:
        self.page.set_input_files(chooser, [str(path) for path in paths])

    def choose_folder(self, folder: Path) -> None:
        self.page.set_input_files("#pick-folder", str(folder))

    def drop(self, *paths: Path) -> None:
        """Drag files or folders over the page and let go: as the desktop does it."""
        self._drag(("dragEnter", "dragOver", "drop"), paths)

    def drag_over(self, *paths: Path) -> None:
        """Drag files or folders over the page, and hold them there."""
        self._drag(("dragEnter", "dragOver"), paths)

    def _drag(self, kinds: Sequence[str], paths: Sequence[Path]) -> None:
        devtools = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in kinds:
            devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 200, "data": data})

    def show_keys(self) -> None:
        """Open the list of keys by its key."""
        self.page.focus(".tile")
        self.page.keyboard.press("?")

    def hold(self, addresses: str) -> list[Route]:
        """Keep requests from the server whose addresses fit an expression; the list grows with each."""
        held: list[Route] = []

        def keep(route: Route) -> None:
            held.append(route)

        self.page.route(re.compile(addresses), keep)
        return held

    def delay(self, addresses: str) -> list[Callable[[], None]]:
        """Let requests pass and keep their answers from the page; the list grows with each, a call lets one go."""
        late: list[Callable[[], None]] = []

        def keep(route: Route) -> None:
            answer = route.fetch()
            late.append(lambda: route.fulfill(response=answer))

        self.page.route(re.compile(addresses), keep)
        return late

    # Read

    def text(self, selector: str) -> str:
        return " ".join((self.page.text_content(selector) or "").replace("\u00a0", " ").split())

    @property
    def headline(self) -> str:
        return self.text("#headline")

    def tiles(self, state: str = "") -> list[dict[str, Any]]:
        """Return number, state and words of the tiles, in the page's order, hidden ones left out."""
        found: list[dict[str, Any]] = self.page.evaluate(
            """(state) => [...document.querySelectorAll(".cell:not([hidden])")]
              .filter((cell) => !state || cell.dataset.state === state)
              .map((cell) => ({ number: Number(cell.dataset.n), state: cell.dataset.state,
                name: cell.querySelector(".name")?.textContent, label: cell.querySelector(".label")?.textContent ?? null,
                text: cell.textContent, hasPicture: (cell.querySelector("img")?.naturalWidth ?? 0) > 0 }))""",
            state,
        )
        return found

    def pictures(self, count: int) -> bool:
        """Whether so many tiles show a picture."""
        return sum(tile["hasPicture"] for tile in self.tiles()) >= count

    @property
    def banners(self) -> str:
        return self.text("#banners")

    @property
    def stage(self) -> str:
        return self.page.get_attribute("body", "data-stage") or ""

    @property
    def job_id(self) -> str:
        return self.page.url.partition("/jobs/")[2][:26]

    # Wait

    def until(self, check: Callable[[], Any], *, within_s: float = SETTLED_S) -> Any:
        """Wait for the page; its events are heard between two looks."""

        def look() -> Any:
            try:
                # The browser's messages are delivered only while it is asked something.
                self.page.evaluate("1")
                return check()
            except Error as error:
                # On its way to another page.
                if "Execution context was destroyed" not in error.message:
                    raise
                return None

        return eventually(look, within_s=within_s, every_s=0.1)

    def until_answered(self, count: int, *, within_s: float = SETTLED_S) -> None:
        """Wait until so many tiles or more have a result."""
        settled = ".cell[data-state=ok], .cell[data-state=failed]"
        self.until(lambda: self.page.locator(settled).count() >= count, within_s=within_s)

    def until_finished(self, *, within_s: float = SETTLED_S) -> None:
        """Wait until the job has ended and its tiles say so: they are drawn some frames later."""
        open_ = ".cell[data-state=queued], .cell[data-state=sending], .cell[data-state=waiting]"
        self.until(lambda: self.stage == "finished" and not self.page.locator(open_).count(), within_s=within_s)


@dataclass
class Browsing:
    """Opens pages, each in a browser profile of its own: ``with Browsing(browser) as browsing``."""

    browser: Browser
    visits: list[Visit] = field(default_factory=list)
    _contexts: list[BrowserContext] = field(default_factory=list)

    def open(self, url: str, *, size: str = "desk", scheme: str = "light", **options: Any) -> Visit:
        width, height = WIDTHS[size]
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
            **options,
        )
        # A busy machine takes its time to draw.
        context.set_default_timeout(1000 * SETTLED_S)
        self._contexts.append(context)
        visit = Visit(context.new_page())
        visit.listen()
        self.visits.append(visit)
        visit.page.goto(url)
        return visit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        complaints = [one for visit in self.visits for one in visit.unexpected]
        for context in self._contexts:
            context.close()
        assert kind is not None or [] == complaints, complaints
