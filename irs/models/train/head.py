"""A new last layer on the features of a model at hand: minutes, and ten pictures a class are enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from irs.models import architectures
from irs.models.forward import choose_device
from irs.models.open import open_model
from irs.models.precision import has_bf16
from irs.models.train.features import Backbone, Features, Seen, find_head, see
from irs.models.train.folder import PictureFolder, check_counts, hold_back
from irs.models.train.judge import Logits, Targets, fit_temperature, judge
from irs.models.train.options import Listener, TrainingOptions, TrainingProgress, TrainingStopped
from irs.models.train.write import Trained, store_weights

#: Of weights on features of mean square 1; from stiff to loose, each begun where the one before ended.
_PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
_ROUNDS = 100
#: Multiplications in one evaluation that a single thread does within milliseconds.
_SMALL_PRODUCTS = 50_000_000
#: How far a map's answers stay above 0, where its ReLU would cut them.
_CLEARANCE = 1.25


@dataclass(frozen=True, slots=True)
class Linear:
    """A last layer: weights (classes, features) and biases (classes,)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def logits(self, features: npt.NDArray[np.float32]) -> Logits:
        """Return (N, classes) of ``features`` (N, features)."""
        scores: Logits = functional.linear(torch.from_numpy(np.ascontiguousarray(features)), self.weight, self.bias).numpy()
        return scores


def train_head(options: TrainingOptions, folder: PictureFolder, other: PictureFolder | None, listener: Listener) -> Trained:
    """Train a last layer for ``folder`` on the model that ``options.backbone`` names; figures are of ``other``, if there is one.

    Raises:
        ModelError: there is no such model, or its last layer cannot be replaced.
        TrainingStopped: the listener asked for it.
    """
    model = open_model(options.backbone or "")
    device = torch.device(choose_device(options.device))
    net = model.build()
    head = find_head(net, len(model.labels), model.name)
    # The features are of the weights as they will be stored.
    store_weights(net)
    amp = torch.bfloat16 if device.type == "cuda" or has_bf16() else torch.float32
    net = net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    backbone = Backbone(net.eval(), head, model.preprocess, model.digest, device, amp)
    seen = see(backbone, folder, options.work_folder / "features.npy", listener)
    check_counts(folder, seen.targets)
    unseen = see(backbone, other, options.work_folder / "validation-features.npy", listener) if other else None
    held = hold_back(seen.targets)
    linear, penalty = fit_linear(seen, held, len(folder.labels), listener, options.work_folder)
    new = replace_head(backbone, model.architecture, linear, seen.places)
    # Rounded as it is stored, then measured.
    store_weights(new)
    layer = new.get_submodule(head)
    linear = Linear(layer.weight.detach().flatten(1), layer.bias.detach())  # type: ignore[operator]
    logits, targets = linear.logits(seen.means[held, 0]), seen.targets[held]
    temperature = fit_temperature(logits, targets)
    return Trained(
        net=new,
        architecture=model.architecture,
        preprocess=model.preprocess,
        temperature=temperature,
        held=judge(logits, targets, temperature),
        validation=judge(linear.logits(unseen.means[:, 0]), unseen.targets, temperature) if unseen else None,
        recipe=(
            ("from", f"{model.name} ({model.digest}), all but its last layer as it was"),
            ("last layer", f"logistic regression on its features, pictures as they are and mirrored, L2 penalty {penalty:g}"),
        ),
        counts=(int((~held).sum()), int(held.sum())),
        unreadable=len(seen.unreadable),
        license=model.license,
        source=f"{model.name} ({model.source}), last layer trained on the folder {options.images.absolute().name}",
    )


def fit_linear(seen: Seen, held: npt.NDArray[np.bool_], classes: int, listener: Listener, work: Path) -> tuple[Linear, float]:
    """Return the logistic regression whose penalty answers the pictures held back best, and that penalty.

    Raises:
        TrainingStopped: the listener asked for it; the features in ``work`` are what is kept.
    """
    features = torch.from_numpy(np.concatenate([seen.means[~held, 0], seen.means[~held, 1]]))
    targets = torch.from_numpy(np.tile(seen.targets[~held], 2))
    centre = features.mean(0)
    scale = (features - centre).square().mean().sqrt().clamp_min(1e-12)
    features = (features - centre) / scale
    weight, bias = torch.zeros(classes, features.shape[1]), torch.zeros(classes)
    best: tuple[float, Linear, float] | None = None
    for done, penalty in enumerate(_PENALTIES, start=1):
        if listener.is_stopped():
            raise TrainingStopped("penalty", done - 1, len(_PENALTIES), work)
        with _threads_for(features.numel() * classes):
            weight, bias = _fit(features, targets, weight, bias, penalty)
        linear = Linear(weight / scale, bias - weight @ centre / scale)
        loss = _held_loss(linear, seen.means[held, 0], seen.targets[held])
        listener.show(TrainingProgress(doing="training", done=done, total=len(_PENALTIES), detail=f"loss {loss:.3f}"))
        if best is None or loss < best[0]:
            best = (loss, linear, penalty)
    assert best is not None
    return best[1], best[2]


def replace_head(backbone: Backbone, architecture: str, linear: Linear, places: Features) -> nn.Module:
    """Return a net of the same architecture with ``linear`` for its last layer, on the CPU, in evaluation mode."""
    new = architectures.build(architecture, len(linear.bias), side_px=backbone.preprocess.crop)
    state = new.state_dict()
    for name, tensor in backbone.net.state_dict().items():
        if state[name].shape == tensor.shape:
            state[name] = tensor.cpu()
    bias = linear.bias
    if backbone.is_map:
        # Behind the head stand a ReLU and the mean over the picture. Raised by the same amount all answers stay above
        # its 0, and their probabilities are what they were.
        lowest = float(linear.logits(places.reshape(-1, places.shape[-1])).min())
        bias = bias + max(0.0, -lowest) * _CLEARANCE
    head = backbone.head
    state[f"{head}.weight"] = linear.weight.reshape(state[f"{head}.weight"].shape)
    state[f"{head}.bias"] = bias
    new.load_state_dict(state)
    return new.eval()


def _fit(
    features: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(functional.linear(features, weight, bias), targets) + penalty / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


@contextmanager
def _threads_for(products: int) -> Iterator[None]:
    """Let one thread do small work: threads that wait for each other thousands of times crawl on a busy machine."""
    before = torch.get_num_threads()
    if products < _SMALL_PRODUCTS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _held_loss(linear: Linear, features: Features, targets: Targets) -> float:
    """Return the negative log likelihood at the best temperature: confidence is mended afterwards."""
    logits = linear.logits(features)
    return judge(logits, targets, fit_temperature(logits, targets)).nll
