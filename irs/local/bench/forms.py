"""One model in each of its forms, without service or decoder: images a second, and labels. Run as a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is imported: as in the worker, one thread a core runs the model.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from irs.models import Model

BATCHES = (1, 8)
EAGER = "eager fp32"

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def measure(model: Model, photos: list[Path], *, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield, for each form, its rates by batch size and, given photos, its agreement with the reference.

    Args:
        photos: none where labels mean nothing: with random weights.
        seconds: of one measurement; at least two batches are run.
    """
    from irs.local.bench.reference import agreement, reference_probabilities, served_probabilities
    from irs.models import Forward
    from irs.models.precision import has_bf16

    exact = reference_probabilities(model, photos) if photos else None
    yield {"form": EAGER, "precision": "fp32", "rates": _rates(_eager(model), model, seconds), "labels": None}
    for precision in ("fp32", "bf16") if has_bf16() else ("fp32",):
        forward = Forward(model, device="cpu", precision=precision, batch_size=max(BATCHES))
        forward.warm()
        yield {
            "form": f"graph {precision}",
            "precision": precision,
            "rates": _rates(forward.probabilities, model, seconds),
            "labels": None if exact is None else agreement(exact, served_probabilities(model, forward, photos)),
        }


def one_thread_per_s(run: Run, pixels: npt.NDArray[np.uint8], seconds: float) -> float:
    """Return the images that one thread answers in a second of its own CPU time: what else runs moves it little."""
    batches, began_s = 0, time.thread_time()
    while (took_s := time.thread_time() - began_s) < seconds or batches < 2:
        run(pixels)
        batches += 1
    return batches * len(pixels) / took_s


def all_cores_per_s(run: Run, pixels: npt.NDArray[np.uint8], seconds: float) -> float:
    """Return the images that a thread a core answer in a second on the clock."""
    done: list[int] = []
    began_s = time.monotonic()

    def loop() -> None:
        batches = 0
        while time.monotonic() - began_s < seconds or batches < 2:
            run(pixels)
            batches += 1
        done.append(batches)

    threads = [threading.Thread(target=loop) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) * len(pixels) / (time.monotonic() - began_s)


def _rates(run: Run, model: Model, seconds: float) -> list[dict[str, float]]:
    side, rates = model.preprocess.crop, []
    for batch in BATCHES:
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        run(pixels)
        rates.append(
            {
                "batch": batch,
                "one_thread_per_s": one_thread_per_s(run, pixels, seconds),
                "all_cores_per_s": all_cores_per_s(run, pixels, seconds),
            }
        )
    return rates


def _eager(model: Model) -> Run:
    """Return the net as torchvision's documentation runs it, on pixels."""
    import torch

    net = model.build().eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.preprocess.mean, model.preprocess.std))

    def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            pictures = (torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255 - mean) / std
            answer: npt.NDArray[np.float32] = torch.softmax(net(pictures) / model.temperature, dim=1).numpy()
        return answer

    return run


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()

    import torch

    from irs.local.bench.stage import jpegs
    from irs.models import open_model
    from irs.worker.process import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    model = open_model(given.model)
    is_random = given.model.endswith("@random")
    photos = jpegs(given.photos) if given.photos and not is_random else []
    forms = list(measure(model, photos, seconds=given.seconds))
    json.dump({"model": model.name, "forms": forms}, sys.stdout)


if __name__ == "__main__":
    main()
