"""The same model behind LitServe: JPEG bytes by HTTP in, five labels out. Only the comparison uses it.

Given every trick of ours: the frozen graph in the same precision, the box resize, memory kept, raw bytes for a body
and no form around them. One worker process, since a second would load the model twice; its batches of eight are
decoded and run in one thread, as LitServe's loop does it: one core computes, the other is left to the HTTP process.
Run as ``python -m irs.local.bench.litserve_app``; no ``from __future__ import annotations``, LitServe reads them.
"""

import argparse
import os
from typing import Annotated, Any

# Before torch is imported: as in the worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import litserve
import numpy as np
from fastapi import Body

BATCH, BATCH_TIMEOUT_S = 8, 0.005
Jpeg = Annotated[bytes, Body(media_type="image/jpeg")]


class Recognize(litserve.LitAPI):  # type: ignore[misc]
    """Decode, one model call a batch, labels."""

    def __init__(self, model: str, precision: str) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=BATCH_TIMEOUT_S)
        self.word, self.precision = model, precision

    def setup(self, device: str) -> None:  # noqa: ARG002 (LitServe's signature)
        """Load the model in the worker's process."""
        import torch

        from irs.imaging import Limits
        from irs.models import Forward, open_model
        from irs.worker.process import keep_freed_memory

        keep_freed_memory()
        torch.set_num_threads(1)
        self.model = open_model(self.word)
        self.forward = Forward(self.model, device="cpu", precision=self.precision, batch_size=BATCH)  # type: ignore[arg-type]
        self.forward.warm()
        self.limits = Limits(20 * 2**20, 100_000_000)

    def decode_request(self, request: Jpeg) -> Any:
        """Return the pixels of one photo."""
        from irs.imaging import decode, fit

        return fit(decode(request, self.limits, side_px=self.model.preprocess.resize), self.model.preprocess)

    def batch(self, inputs: list[Any]) -> Any:
        """Leave the batch a list: it is cut below."""
        return inputs

    def predict(self, x: list[Any]) -> list[Any]:
        """Return a row of probabilities for each photo, by batches of the sizes that were warmed."""
        rows: list[Any] = []
        while len(rows) < len(x):
            size = next(size for size in self.forward.sizes if size <= len(x) - len(rows))
            rows.extend(self.forward.probabilities(np.stack(x[len(rows) : len(rows) + size])))
        return rows

    def unbatch(self, output: list[Any]) -> list[Any]:
        """It is a list of rows already."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return the first five labels."""
        first = np.argsort(output)[: -len(output) - 1 : -1][:5]
        return {"labels": [[self.model.labels[n], float(output[n])] for n in first]}


def main() -> None:
    """Serve until SIGINT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    server = litserve.LitServer(Recognize(given.model, given.precision), accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=given.port, num_api_servers=1, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
