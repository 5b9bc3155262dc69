"""Row 14: labels of the served form against the reference's, over real photos. Run as a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

# Before torch is imported: as in the worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    """Print the agreement as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    given = parser.parse_args()

    from irs.local.bench.reference import agreement, reference_probabilities, served_probabilities
    from irs.local.bench.stage import jpegs
    from irs.models import Forward, open_model

    model, photos = open_model(given.model), jpegs(given.photos)
    forward = Forward(model, device="cpu")
    found = agreement(reference_probabilities(model, photos), served_probabilities(model, forward, photos))
    json.dump({"model": model.name, "precision": forward.precision, **found}, sys.stdout)


if __name__ == "__main__":
    main()
