"""Makes the pictures of Flower in ``docs/screenshots``: dashboard, worker, tasks, failed task, broker.

``python tools/flower_screenshots.py --photos FOLDER --model MODEL`` needs the extras ``all`` and ``test``, and Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Started and driven as the tests do it.
sys.path.insert(0, str(ROOT / "tests"))

from browsing import Browsing  # noqa: E402
from monitors import FlowerSite  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from waiting import eventually  # noqa: E402
from workers import Workers, workers_on_a_stack  # noqa: E402

from irs.local import start_embedded_cloud  # noqa: E402

OUT = ROOT / "docs" / "screenshots"
QUALITY = 60
IMAGES = 40


def main() -> None:
    """Start the service, answer photos, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", required=True)
    asked = parser.parse_args()
    photos = sorted(path for path in asked.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:IMAGES]
    if not photos:
        parser.error(f"{asked.photos} holds no photos.")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        parser.error("There is no Chromium on this machine: `apt-get install chromium` brings one.")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with (
            start_embedded_cloud(folder / "cloud", die_with_thread=False) as embedded,
            workers_on_a_stack(embedded, folder, model=asked.model, IRS_MONITORING="1", IRS_STACK="irs") as workers,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
            flower = FlowerSite(workers.environment, folder)
            try:
                failed = answer(workers, flower, photos)
                shoot(flower, failed, Browsing(browser))
            finally:
                flower.kill()
                browser.close()


def answer(workers: Workers, flower: FlowerSite, photos: list[Path]) -> str:
    """Let two workers answer the photos and what is none, while Flower watches; return the id of the failed task."""
    for name in ("kitchen", "garden"):
        workers.start(is_awaited=False, IRS_INSTANCE_ID=name)
    for one in workers.started:
        eventually(one.is_ready, within_s=120)
    flower.start()
    eventually(lambda: len(flower.json("/api/workers")) == 2, within_s=60, every_s=0.2)
    names = (*(photo.name for photo in photos), "holiday notes.jpg")
    ids = workers.sent(*(photo.read_bytes() for photo in photos), b"Dear diary", names=names)
    workers.answered(ids, within_s=180)
    eventually(lambda: flower.tasks().get(ids[-1], {}).get("state") == "FAILURE", within_s=60, every_s=0.2)
    return ids[-1]


def shoot(flower: FlowerSite, failed: str, browsing: Browsing) -> None:
    """Take each page in both themes."""
    pages = {
        "dashboard": "/",
        "worker": "/worker/irs@kitchen",
        "tasks": "/tasks",
        "task": f"/task/{failed}",
        "broker": "/broker",
    }
    for name, path in pages.items():
        for scheme in ("light", "dark"):
            visit = browsing.open(f"{flower.url}{path}", scheme=scheme)
            if name == "dashboard":
                # It asks anew each second, and says so when the answer before was late.
                visit.until(lambda visit=visit: visit.text("#workers-refresh-status").startswith("Updated"))
            else:
                visit.page.wait_for_load_state("networkidle")
            image = Image.open(io.BytesIO(visit.page.screenshot()))
            target = OUT / f"flower-{name}-{scheme}.webp"
            image.save(target, "WEBP", quality=QUALITY, method=6)
            sys.stdout.write(f"{target.relative_to(ROOT)}  {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
