"""What ``make demo`` shows: sample photos recognised by the running service. Run by ``irs up -- COMMAND``."""

from __future__ import annotations

import sys
import threading
from importlib.resources import files

from irs import Client
from irs.errors import MissingExtra
from irs.settings import get_settings

#: Pictures of scikit-image that are CC0 and lie in its wheel.
SAMPLES = {"cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg", "motorcycle": "motorcycle_left.png"}


def main() -> None:
    """Print the labels of the samples; then, on a terminal, wait for Ctrl-C."""
    try:
        folder = files("skimage") / "data"
    except ModuleNotFoundError:
        raise MissingExtra("The sample photos come with scikit-image: install irs[demo].") from None
    job = Client().recognize([str(folder / file) for file in SAMPLES.values()])
    for kind, record in zip(SAMPLES, job.in_order(), strict=True):
        said = ", ".join(f"{label.label} {label.confidence:.0%}" for label in record.labels[:3])
        print(f"{kind:>10}: {said or record.error}")  # noqa: T201 (this is the demonstration's answer)
    settings = get_settings()
    print(f"\nS3, SQS and SNS answer at {settings.endpoint_url}; records lie in s3://{settings.output_bucket}/jobs/{job.id}/")  # noqa: T201
    if not sys.stdout.isatty():
        return
    print("Try it: .venv/bin/irs recognize PHOTO… in another terminal. Ctrl-C ends all.")  # noqa: T201
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
