"""One training from its folder to its model directory."""

from __future__ import annotations

import numpy as np
import torch

from irs.imaging import Preprocess
from irs.models.forward import choose_device
from irs.models.train.augment import MEAN, STD
from irs.models.train.checkpoint import alone_in
from irs.models.train.folder import PictureFolder, read_folder
from irs.models.train.head import train_head
from irs.models.train.judge import Judgement, fit_temperature, judge, logits_of, recompute_batch_norm
from irs.models.train.options import DEFAULT_ARCHITECTURE, Listener, TrainingOptions
from irs.models.train.plan import Plan
from irs.models.train.scratch import Scratch, train_scratch
from irs.models.train.tiles import open_tiles
from irs.models.train.write import Trained, check_out, recover_model, store_weights, write_model


def train(options: TrainingOptions, listener: Listener | None = None) -> Trained:
    """Train a model and write its directory; goes on where the same options were stopped. Blocks for the whole budget.

    Raises:
        SetupError: the folder, the options or the place for the model cannot be used; in one sentence.
        TrainingStopped: the listener asked for it.
    """
    listener = listener or Listener()
    check_out(options.out)
    folder = read_folder(options.images, labels_file=options.labels)
    # Before the hours, not after them.
    other = read_folder(options.validation, folders=folder.folders) if options.validation else None
    choose_device(options.device)
    # To the end: the figures are of arrays mapped from there, and two would write the same model.
    with alone_in(options.work_folder):
        recover_model(options.out)
        if options.backbone is not None:
            trained = train_head(options, folder, other, listener)
        else:
            trained = _finish(options, other, train_scratch(options, folder, listener), listener)
        write_model(options, folder, trained, listener)
    return trained


def _finish(options: TrainingOptions, other: PictureFolder | None, scratch: Scratch, listener: Listener) -> Trained:
    """Return the averaged net as it will be served, with its figures."""
    listener.say("Measuring the model.")
    net, pixels = scratch.net, scratch.pixels
    # First the weights as they are stored, then what is measured with them.
    store_weights(net)
    recompute_batch_norm(net, pixels, scratch.trained, scratch.amp)
    targets = scratch.tiles.targets[scratch.held]
    logits = logits_of(net, pixels, scratch.held, torch.float32)
    temperature = fit_temperature(logits, targets)
    return Trained(
        net=net.float().cpu(),
        architecture=options.architecture or DEFAULT_ARCHITECTURE,
        preprocess=Preprocess(resize=options.side_px, crop=options.side_px, mean=MEAN, std=STD),
        temperature=temperature,
        held=judge(logits, targets, temperature),
        validation=_validate(options, other, scratch, temperature, listener) if other else None,
        recipe=_recipe(scratch.plan),
        counts=(len(scratch.trained), len(scratch.held)),
        unreadable=len(scratch.tiles.unreadable),
        source=f"random weights, trained on the folder {options.images.absolute().name}",
    )


def _validate(
    options: TrainingOptions, other: PictureFolder, scratch: Scratch, temperature: float, listener: Listener
) -> Judgement:
    tiles = open_tiles(other, options.side_px, options.work_folder / "validation.npy", listener)
    pixels = torch.from_numpy(tiles.pixels).to(scratch.pixels.device)
    logits = logits_of(scratch.net, pixels, np.arange(len(tiles.targets)), torch.float32)
    return judge(logits, tiles.targets, temperature)


def _recipe(plan: Plan) -> tuple[tuple[str, str], ...]:
    stages = ", then ".join(f"{stage.steps:,} steps of {stage.batch} at {stage.side_px} px" for stage in plan.stages)
    more = "; other colours, a part erased, half of the batches mixed in the first 60 %" if plan.is_strong else ""
    return (
        ("from", f"random weights, seed {plan.seed}"),
        ("length", f"{plan.epochs:.1f} epochs: {stages}"),
        (
            "optimizer",
            f"Muon on the convolutions (relative rate {plan.peak:g} at its peak, then straight to 0), AdamW on the rest",
        ),
        ("augmentation", f"random part of the picture, mirrored or not{more}"),
        ("weights", "average of the steps (0.998), in half precision; batch norms of plain pictures at the side it is served at"),
    )
