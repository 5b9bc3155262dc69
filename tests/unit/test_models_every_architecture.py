"""Every classification architecture that torchvision lists builds and answers."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from irs.models import Forward, open_model
from irs.models.architectures import architectures


# vit_h_14 computes a teraflop a picture, some dozen times.
@pytest.mark.timeout(3600)
@pytest.mark.slow
@pytest.mark.parametrize("name", architectures())
def test_every_architecture_builds_and_answers(name: str) -> None:
    model = open_model(f"{name}@random")
    forward = Forward(model, device="cpu", precision="fp32", batch_size=1)
    pixels = np.random.default_rng(0).integers(0, 256, (1, model.preprocess.crop, model.preprocess.crop, 3), dtype=np.uint8)

    probabilities = forward.probabilities(pixels)

    assert (1, len(model.labels)) == probabilities.shape
    assert np.isfinite(probabilities).all()
    assert 1.0 == pytest.approx(float(probabilities.sum()), abs=1e-3)
    # The largest takes 2.6 GB, twice while it is frozen.
    del forward
    gc.collect()
