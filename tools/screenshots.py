"""Makes the pictures of the page in ``docs/screenshots``: every state, three widths, both themes.

``python tools/screenshots.py --photos FOLDER --model MODEL`` needs the extras ``all`` and ``test``, and Chromium.
With ``--png FOLDER`` they are kept unpacked as well; ``--only finished`` makes those of one state.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Started and driven as the tests do it.
sys.path.insert(0, str(ROOT / "tests"))

from browsing import WIDTHS, Browsing, Visit  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from serving import Site, site_on_a_stack  # noqa: E402
from workers import Running  # noqa: E402

from irs.local import start_embedded_cloud  # noqa: E402

OUT = ROOT / "docs" / "screenshots"
QUALITY = 26
MOST_BYTES = 3_000_000
#: A finger and no pointer: what is offered differs.
PHONE = {"has_touch": True, "is_mobile": True}
IN_SIGHT = """
  [...document.querySelectorAll(".cell:not([hidden])[data-state=ok]")]
    .filter((cell) => cell.getBoundingClientRect().top < innerHeight)
    .every((cell) => cell.querySelector("img")?.naturalWidth > 0)
"""


@dataclass
class Shoot:
    """One run: the site, its photos, where pictures go."""

    site: Site
    browsing: Browsing
    photos: list[Path]
    odd: list[Path]
    png: Path | None
    only: str

    def wants(self, state: str) -> bool:
        return not self.only or self.only == state

    def take(self, state: str, open: Callable[[str, str], Visit]) -> None:
        """Take one state at all widths in both themes."""
        if not self.wants(state):
            return
        for size in WIDTHS:
            for scheme in ("light", "dark"):
                visit = open(size, scheme)
                visit.page.evaluate("document.fonts.ready")
                picture = visit.page.screenshot()
                visit.page.context.close()
                name = f"{state}-{size}-{scheme}"
                if self.png:
                    (self.png / f"{name}.png").write_bytes(picture)
                OUT.mkdir(parents=True, exist_ok=True)
                Image.open(io.BytesIO(picture)).convert("RGB").save(OUT / f"{name}.webp", quality=QUALITY, method=6)
        sys.stdout.write(f"{state}\n")

    def open(self, url: str, size: str, scheme: str, **options: object) -> Visit:
        return self.browsing.open(url, size=size, scheme=scheme, **(PHONE if size == "phone" else {}), **options)

    def at(self, path: str, then: Callable[[Visit], object] = str, **options: object) -> Callable[[str, str], Visit]:
        """A state that an address leads to."""

        def open(size: str, scheme: str) -> Visit:
            visit = self.open(self.site.url + path, size, scheme, **options)
            then(visit)
            return visit

        return open

    def job_of(self, photos: list[Path], *, done: Callable[[Visit], object]) -> str:
        """Hand photos in, wait until ``done``; return the path of the job."""
        visit = self.browsing.open(self.site.url)
        visit.choose(photos)
        visit.until(lambda: visit.job_id)
        visit.until(lambda: done(visit), within_s=150)
        path = f"/jobs/{visit.job_id}"
        visit.page.context.close()
        return path


def shoot(run: Shoot) -> None:
    """Take all states, from an empty page without a worker to a finished job."""
    run.take("empty", run.at("/"))
    run.take("dragging", run.at("/", lambda visit: visit.drag_over(run.photos[0])))
    run.take("uploading", lambda size, scheme: _uploading(run, size, scheme))
    run.take("error", run.at("/jobs/01k9t3v6q8w0y2r4e6n8m1h3j5", lambda visit: visit.expect("410")))
    run.take("api", run.at("/api"))
    if run.wants("waiting"):
        path = run.job_of(run.photos[:8], done=lambda visit: "8 of 8 arrived" in visit.headline)
        run.take("waiting", run.at(path, lambda visit: visit.until(lambda: "worker" in visit.text("#subline"))))
    worker = run.site.workers.start()
    if run.wants("running"):
        run.take("running", run.at(_half_done(run, worker), _seen))
        run.site.workers.start()
    path = run.job_of([*run.photos, *run.odd], done=lambda visit: "recognised in" in visit.headline)

    run.take("finished", run.at(path, _seen))
    run.take("unsure", run.at(f"{path}?show=unsure", _seen))
    run.take(
        "failed", run.at(f"{path}?show=failed", lambda visit: visit.until(lambda: len(visit.tiles("failed")) == len(run.odd)))
    )
    run.take("groups", run.at(f"{path}?group=label&size=s", _seen))
    run.take("detail", run.at(f"{path}#4", lambda visit: visit.until(lambda: visit.page.locator("#detail-labels tr").count())))
    run.take("model", run.at("/model"))
    with run.site.beside(IRS_WEB_TOKEN="t" * 40) as closed:
        run.take("login", lambda size, scheme: run.open(f"{closed.url}/login?wrong=1", size, scheme))
    run.take("keys", run.at(path, lambda visit: visit.show_keys()))
    run.take("without-scripts", run.at(path, java_script_enabled=False))
    run.take("image", run.at(f"{path}/images/4"))


def _seen(visit: Visit) -> None:
    """Wait until the choice is made and each picture in sight is there."""
    visit.until(lambda: "(" in visit.text("#show option"))
    visit.until(lambda: visit.page.evaluate(IN_SIGHT))


def _half_done(run: Shoot, worker: Running) -> str:
    """A job of 24 images, nine of them answered when its worker went."""
    visit = run.browsing.open(run.site.url)
    visit.hold(r"/images/(9|1\d|2\d)\?")
    visit.choose(run.photos[:24])
    visit.until(lambda: len(visit.tiles("ok")) == 9)
    worker.kill()
    visit.page.unroute_all()
    visit.until(lambda: len(visit.tiles("waiting")) == 15)
    return f"/jobs/{visit.job_id}"


def _uploading(run: Shoot, size: str, scheme: str) -> Visit:
    visit = run.open(run.site.url, size, scheme)
    devtools = visit.page.context.new_cdp_session(visit.page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 120_000}
    devtools.send("Network.emulateNetworkConditions", slow)
    visit.choose(run.photos[:30])
    visit.until(lambda: visit.pictures(2) and visit.headline[0] != "0")
    return visit


def main() -> int:
    """Run it; 1 if the pictures are too large together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of 60 photos or so")
    parser.add_argument("--model", required=True, help="a model directory")
    parser.add_argument("--png", type=Path, help="keep them as PNG here too")
    parser.add_argument("--only", default="", help="one state")
    given = parser.parse_args()
    photos = sorted(path for path in given.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))[:60]
    if given.png:
        given.png.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        folder = Path(made)
        (folder / "site").mkdir()
        # Last in the order of names: what failed is not what a page is first seen with.
        damaged, text = folder / "scan-12.jpg", folder / "trip-41.jpg"
        damaged.write_bytes(photos[0].read_bytes()[:9000])
        text.write_bytes(photos[1].read_bytes()[:3000])
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with (
            start_embedded_cloud(folder / "cloud") as cloud,
            site_on_a_stack(cloud, folder / "site", model=given.model) as site,
            Browsing(chromium) as browsing,
        ):
            shoot(Shoot(site, browsing, photos, [damaged, text], given.png, given.only))
        chromium.close()
    size_bytes = sum(path.stat().st_size for path in OUT.iterdir())
    sys.stdout.write(f"{size_bytes:,} bytes\n")
    return int(size_bytes > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
