"""What ``make demo`` shows: sample photos recognised by the running service. Run by ``irs up -- COMMAND``."""

from __future__ import annotations

import sys
import threading
from importlib.resources import files

from irs.cli import outcome

#: Pictures of scikit-image that are CC0 and lie in its wheel.
SAMPLES = {"cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg", "motorcycle": "motorcycle_left.png"}


def demo() -> None:
    """Write the labels of the samples; then, on a terminal, wait for Ctrl-C.

    Raises:
        MissingExtra: scikit-image is not installed.
    """
    from irs import Client
    from irs.errors import MissingExtra
    from irs.settings import get_settings

    try:
        folder = files("skimage") / "data"
    except ModuleNotFoundError:
        raise MissingExtra("The sample photos come with scikit-image: install irs[demo].") from None
    job = Client().recognize([str(folder / file) for file in SAMPLES.values()])
    for kind, record in zip(SAMPLES, job.in_order(), strict=True):
        said = ", ".join(f"{label.label} {label.confidence:.0%}" for label in record.labels[:3])
        outcome.answer(f"{kind:>10}: {said or record.error}")
    settings = get_settings()
    outcome.answer(f"Records: s3://{settings.output_bucket}/jobs/{job.id}/ at {settings.endpoint_url}")
    if not sys.stdout.isatty():
        return
    outcome.answer("In another terminal: .venv/bin/irs recognize PHOTO...   .venv/bin/irs status   Ctrl-C here ends all.")
    threading.Event().wait()


if __name__ == "__main__":
    outcome.end(demo)
