"""What ``make demo`` shows: sample photos recognised by the running service. Run by ``irs up -- COMMAND``."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from importlib.resources import files

from irs.cli import outcome

#: Pictures of scikit-image that are CC0 and lie in its wheel.
SAMPLES = {"cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg", "motorcycle": "motorcycle_left.png"}
#: Of no kind that the bundled model knows.
UNKNOWN_TO_BUNDLED = {"motorcycle"}


def demo() -> None:
    """Write the labels of the samples; then, on a terminal, wait for Ctrl-C.

    Raises:
        MissingExtra: scikit-image is not installed.
    """
    from irs import Client
    from irs.errors import MissingExtra
    from irs.models.choice import BUNDLED
    from irs.settings import get_settings

    settings = get_settings()
    is_bundled = settings.model == BUNDLED
    samples = {kind: file for kind, file in SAMPLES.items() if not (is_bundled and kind in UNKNOWN_TO_BUNDLED)}
    try:
        folder = files("skimage") / "data"
    except ModuleNotFoundError:
        raise MissingExtra("The sample photos come with scikit-image: install irs[demo].") from None
    job = Client().recognize([str(folder / file) for file in samples.values()])
    for kind, record in zip(samples, job.in_order(), strict=True):
        said = ", ".join(f"{label.label} {label.confidence:.0%}" for label in record.labels[:3])
        outcome.answer(f"{kind:>10}: {said or (record.error.message if record.error else 'no label')}")
    if is_bundled:
        outcome.answer(f"{BUNDLED} knows 200 kinds of things: all else gets the label of the kind it looks most like.")
    if page := os.environ.get("IRS_WEB_URL"):
        outcome.answer(f"The page, for photos of your own: {page}")
    outcome.answer(f"Records: s3://{settings.output_bucket}/jobs/{job.id}/ at {settings.endpoint_url}")
    if not sys.stdout.isatty():
        return
    if page:
        # Where there is a browser; where there is none nothing happens.
        webbrowser.open(page)
    outcome.answer("In another terminal: .venv/bin/irs recognize PHOTO...   .venv/bin/irs status   Ctrl-C here ends all.")
    threading.Event().wait()


if __name__ == "__main__":
    outcome.end(demo)
