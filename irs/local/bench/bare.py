"""The bare loop: what the model and the decoder alone can do, without any service. Run as a process of its own.

One thread a core, each: read a file, decode it, and after eight of them one model call. This is the denominator
of the service's numbers, so it uses the service's own decoder and its best form of the model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

# Before torch is imported: as in the worker, one thread a core runs the model.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Precision = Literal["auto", "fp32", "bf16"]


def run(model_name: str, photos: list[Path], *, images: int, precision: Precision) -> dict[str, Any]:
    """Return ``images_per_s`` (wall), ``cpu_ms`` an image, and what the model ran as."""
    import numpy as np
    import torch

    from irs.imaging import Limits, decode, fit
    from irs.models import Forward, open_model
    from irs.worker.process import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    model = open_model(model_name)
    forward = Forward(model, device="cpu", precision=precision, batch_size=8)
    forward.warm()
    limits = Limits(20 * 2**20, 100_000_000)
    batch = forward.sizes[0]
    numbers = iter(range(images // batch))
    endless = itertools.cycle(photos)
    lock = threading.Lock()

    def loop() -> None:
        while True:
            with lock:
                if next(numbers, None) is None:
                    return
                files = [next(endless) for _ in range(batch)]
            pixels = [fit(decode(file.read_bytes(), limits, side_px=model.preprocess.resize), model.preprocess) for file in files]
            forward.probabilities(np.stack(pixels))

    threads = [threading.Thread(target=loop) for _ in range(os.cpu_count() or 1)]
    began, cpu_began = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
    done = images // batch * batch
    return {
        "images": done,
        "images_per_s": done / wall_s,
        "cpu_ms": 1000 * cpu_s / done,
        "precision": forward.precision,
        "device": forward.device,
    }


def main() -> None:
    """Print the result as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    given = parser.parse_args()

    from irs.local.bench.stage import jpegs

    json.dump(run(given.model, jpegs(given.photos), images=given.images, precision=given.precision), sys.stdout)


if __name__ == "__main__":
    main()
