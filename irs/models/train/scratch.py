"""A net from random weights, over as many sittings as it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from irs.errors import SetupError
from irs.models import architectures
from irs.models.forward import choose_device
from irs.models.precision import has_bf16
from irs.models.train.augment import Augmenter
from irs.models.train.checkpoint import load_checkpoint, save_checkpoint
from irs.models.train.folder import PictureFolder, check_counts, hold_back
from irs.models.train.judge import fit_temperature, judge, logits_of, recompute_batch_norm
from irs.models.train.options import (
    DEFAULT_ARCHITECTURE,
    DEFAULT_EPOCHS,
    Listener,
    TrainingOptions,
    TrainingProgress,
    TrainingStopped,
)
from irs.models.train.plan import Plan, make_plan, relative_cost, stage_batch, stage_sides
from irs.models.train.tiles import Tiles, open_tiles
from irs.models.train.trainer import Trainer

#: A stop by force loses no more than this.
_SAVE_EVERY_S = 300.0
#: The end of an epoch is a good moment, but not every second.
_SAVE_LEAST_S = 20.0
_REPORT_STEPS = 20
_LOOKS = 15
_LOOK_PICTURES = 2000
_TRIAL_STEPS = (2, 8)
#: What is left of the minutes for the figures at the end.
_TRAINED_SHARE = 0.96


@dataclass(frozen=True, slots=True)
class Scratch:
    """What a training from scratch ended with: the averaged net, as yet with no right batch norms."""

    net: nn.Module
    plan: Plan
    tiles: Tiles
    pixels: torch.Tensor
    trained: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]
    amp: torch.dtype


def train_scratch(options: TrainingOptions, folder: PictureFolder, listener: Listener) -> Scratch:
    """Train a net, or go on with the one in the work folder. Blocks for the whole budget.

    Raises:
        SetupError: the net takes no such pictures, the work folder is of another training, or the numbers are lost.
        TrainingStopped: the listener asked for it.
    """
    architecture = options.architecture or DEFAULT_ARCHITECTURE
    architectures.check_architecture(architecture)
    torch.manual_seed(options.seed)
    net = architectures.build(architecture, len(folder.labels), side_px=options.side_px)
    sides_px = _fitting_sides(net, architecture, options.side_px)
    tiles = open_tiles(folder, options.side_px, options.work_folder / "pictures.npy", listener)
    check_counts(folder, tiles.targets)
    return _Session(options, architecture, folder, tiles, listener, net, sides_px).run()


class _Session:
    """One sitting."""

    def __init__(
        self,
        options: TrainingOptions,
        architecture: str,
        folder: PictureFolder,
        tiles: Tiles,
        listener: Listener,
        net: nn.Module,
        sides_px: tuple[int, ...],
    ) -> None:
        self._options, self._tiles, self._listener, self._sides_px = options, tiles, listener, sides_px
        self._work = options.work_folder
        self._device = torch.device(choose_device(options.device))
        self._amp = _choose_amp(net, self._device)
        self._pixels = torch.from_numpy(tiles.pixels).to(self._device)
        held = hold_back(tiles.targets)
        self._held, self._trained = np.flatnonzero(held), np.flatnonzero(~held)
        self._asked = {
            "architecture": architecture,
            "pictures": folder.sha256(),
            "epochs": options.epochs if options.minutes else options.epochs or DEFAULT_EPOCHS,
            "minutes": options.minutes,
            "seed": options.seed,
            "batch": options.batch,
            "side_px": options.side_px,
        }
        self._net = net

    def run(self) -> Scratch:
        """Train to the end of the plan."""
        found = load_checkpoint(self._work)
        trainer = self._trainer(self._net, Plan.from_json(found[1]["plan"]) if found else self._new_plan())
        if found:
            self._check_same(trainer.plan, found[1])
            trainer.restore(found[0], int(found[1]["step"]))
            self._listener.say(f"Going on after step {trainer.step:,} of {trainer.plan.steps:,}, as {self._work} holds it.")
        else:
            self._save(trainer)
        self._train(trainer)
        return Scratch(trainer.averaged(), trainer.plan, self._tiles, self._pixels, self._trained, self._held, self._amp)

    def _train(self, trainer: Trainer) -> None:
        plan = trainer.plan
        look_every = max(1, round(plan.epochs / _LOOKS))
        saved_s = since_s = time.monotonic()
        losses: list[torch.Tensor] = []
        done = 0
        while trainer.step < plan.steps:
            if self._listener.is_stopped():
                self._loss_of(losses, trainer.step)
                self._save(trainer)
                raise TrainingStopped("step", trainer.step, plan.steps, self._work)
            moment = plan.at(trainer.step)
            losses.append(trainer.advance())
            done += moment.batch
            epoch, next_epoch = (n // plan.pictures for n in (moment.first, moment.first + moment.batch))
            if trainer.step % _REPORT_STEPS == 0 or trainer.step == plan.steps:
                loss = self._loss_of(losses, trainer.step)
                now_s = time.monotonic()
                self._report(trainer, loss, done / max(now_s - since_s, 1e-6))
                since_s, done, losses = now_s, 0, []
            if time.monotonic() - saved_s > (_SAVE_LEAST_S if next_epoch > epoch else _SAVE_EVERY_S):
                # Two checkpoints of lost numbers would push out the last good one.
                self._loss_of(losses, trainer.step)
                self._save(trainer)
                saved_s = time.monotonic()
            if next_epoch > epoch and next_epoch % look_every == 0 and trainer.step < plan.steps:
                self._look(trainer, next_epoch)
                since_s, done = time.monotonic(), 0
        self._save(trainer)

    def _loss_of(self, losses: Sequence[torch.Tensor], step: int) -> float:
        """Return the mean loss.

        Raises:
            SetupError: it is no number.
        """
        loss = float(torch.stack(list(losses)).mean()) if losses else 0.0
        if not math.isfinite(loss):
            raise SetupError(
                f"The loss is no number any more at step {step:,}: train another --architecture, or with another --seed "
                "in another --work-dir."
            )
        return loss

    def _report(self, trainer: Trainer, loss: float, speed: float) -> None:
        plan, moment = trainer.plan, trainer.plan.at(trainer.step - 1)
        self._listener.show(
            TrainingProgress(
                doing="training",
                done=trainer.step,
                total=plan.steps,
                detail=f"epoch {(moment.first + moment.batch) / plan.pictures:.2f} of {plan.epochs:.1f}, "
                f"{moment.side_px} px, loss {loss:.3f}, {speed:.0f} images/s",
                remaining_s=self._remaining_s(plan, trainer.step, speed),
            )
        )

    @staticmethod
    def _remaining_s(plan: Plan, step: int, speed: float) -> float:
        """Return the seconds to the end, if the cost goes with the side as a plan takes it."""
        side_px = plan.at(step - 1).side_px
        before, left = 0, 0.0
        for stage in plan.stages:
            steps = max(0, before + stage.steps - max(step, before))
            left += steps * stage.batch * relative_cost(stage.side_px) / relative_cost(side_px)
            before += stage.steps
        return left / speed

    def _look(self, trainer: Trainer, epoch: int) -> None:
        """Say how good the net is on pictures held back."""
        net = trainer.averaged()
        recompute_batch_norm(net, self._pixels, self._trained[:: max(1, len(self._trained) // _LOOK_PICTURES)], self._amp)
        targets = self._tiles.targets[self._held]
        logits = logits_of(net, self._pixels, self._held, self._amp)
        seen = judge(logits, targets, fit_temperature(logits, targets))
        self._listener.say(
            f"epoch {epoch}: {seen.top1:.1%} right, {seen.top5:.1%} within five, of {seen.pictures:,} pictures held back"
        )

    def _save(self, trainer: Trainer) -> None:
        facts = {
            "plan": trainer.plan.to_json(),
            "step": str(trainer.step),
            "torch": torch.__version__,
            "threads": str(torch.get_num_threads()),
        }
        save_checkpoint(self._work, trainer.step, trainer.tensors(), facts)

    def _check_same(self, plan: Plan, facts: dict[str, str]) -> None:
        for name, value in self._asked.items():
            if plan.asked.get(name) != value:
                what = "other pictures" if name == "pictures" else f"{name} {plan.asked.get(name)}, not {value}"
                raise SetupError(
                    f"{self._work} holds a training with {what}: give the same command, another --work-dir, or delete the folder."
                )
        if facts["torch"] != torch.__version__ or facts["threads"] != str(torch.get_num_threads()):
            self._listener.say(
                f"The checkpoint is of torch {facts['torch']} with {facts['threads']} threads: the result will be as good, "
                "but not equal to the last bit."
            )

    def _new_plan(self) -> Plan:
        options = self._options
        common = {
            "asked": self._asked,
            "seed": options.seed,
            "pictures": len(self._trained),
            "sides_px": self._sides_px,
            "batch": options.batch,
        }
        if options.minutes is None:
            plan = make_plan(**common, epochs=options.epochs or DEFAULT_EPOCHS)  # type: ignore[arg-type]
        else:
            cost_s = self._measure()
            plan = make_plan(**common, budget_s=options.minutes * 60 * _TRAINED_SHARE, cost_s=cost_s)  # type: ignore[arg-type]
        stages = ", ".join(f"{stage.steps:,} steps of {stage.batch} at {stage.side_px} px" for stage in plan.stages)
        self._listener.say(f"{plan.epochs:.1f} epochs of {plan.pictures:,} pictures: {stages}.")
        return plan

    def _measure(self) -> dict[int, float]:
        """Return the seconds that training takes a picture, by side."""
        self._listener.say("Measuring the speed of this machine.")
        cost_s = {}
        warm, timed = _TRIAL_STEPS
        for side_px in dict.fromkeys(self._sides_px):
            batch = stage_batch(self._options.batch, side_px, self._sides_px[-1])
            plan = make_plan(
                asked={},
                seed=0,
                pictures=len(self._trained),
                sides_px=(side_px,) * 3,
                batch=batch,
                epochs=batch * 3 * (warm + timed) / len(self._trained),
            )
            torch.manual_seed(0)
            net = architectures.build(self._asked["architecture"], self._classes(), side_px=self._sides_px[-1])  # type: ignore[arg-type]
            trainer = self._trainer(net, plan)
            for _ in range(warm):
                float(trainer.advance())
            took_s = []
            for _ in range(timed):
                begun_s = time.perf_counter()
                float(trainer.advance())
                took_s.append(time.perf_counter() - begun_s)
            # The least: what else runs for a moment must not shrink the plan.
            cost_s[side_px] = min(took_s) / plan.stages[0].batch
        return cost_s

    def _classes(self) -> int:
        return int(self._tiles.targets.max()) + 1

    def _trainer(self, net: nn.Module, plan: Plan) -> Trainer:
        augmenter = Augmenter(plan, self._pixels, self._trained, self._tiles.targets[self._trained], self._amp)
        return Trainer(net, plan, augmenter, device=self._device, amp=self._amp)


def _choose_amp(net: nn.Module, device: torch.device) -> torch.dtype:
    """Return what convolutions are reckoned in: half precision where the machine has it and trains rightly."""
    if device.type == "cuda":
        return torch.bfloat16
    # Now and then a CPU's gradient of a grouped convolution in bf16 is not finite, the likelier the more freed memory
    # holds such numbers (seen with torch 2.13, shufflenet_v2_x0_5 at 16 to 32 px; never in float32).
    is_grouped = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in net.modules())
    return torch.bfloat16 if has_bf16() and not is_grouped else torch.float32


def _fitting_sides(net: nn.Module, architecture: str, side_px: int) -> tuple[int, ...]:
    """Return the sides of the stages; where the net takes no smaller pictures, the full one three times.

    Raises:
        SetupError: it does not take the full side.
    """
    fitting = [side for side in dict.fromkeys(stage_sides(side_px)) if architectures.find_refusal(net, side) is None]
    if side_px not in fitting:
        raise SetupError(f"{architecture} does not take pictures of {side_px} px: give another --side, 224 fits most nets.")
    return tuple(side if side in fitting else side_px for side in stage_sides(side_px))
