"""The steps of a training, and all that must survive between two of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn import functional

from irs.errors import SetupError
from irs.models.train.augment import Augmenter
from irs.models.train.judge import first_output
from irs.models.train.muon import make_optimizers
from irs.models.train.plan import Plan

_SMOOTHING = 0.1
_AVERAGE = 0.998


class Trainer:
    """One net under one plan.

    Args:
        amp: what convolutions are reckoned in: float32, or a half precision.

    Attributes:
        step: steps done.
    """

    def __init__(self, net: nn.Module, plan: Plan, augmenter: Augmenter, *, device: torch.device, amp: torch.dtype) -> None:
        self.net = net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plan, self.step = plan, 0
        self._augmenter, self._device, self._amp = augmenter, device, amp
        self._optimizers = make_optimizers(self.net, lr=plan.peak, dtype=amp)
        self._peaks = [group["lr"] for optimizer in self._optimizers for group in optimizer.param_groups]
        self._average = [parameter.detach().clone() for parameter in self.net.parameters()]
        self._make_state()

    def advance(self) -> torch.Tensor:
        """Do one step; returns its loss, still on the device."""
        moment = self.plan.at(self.step)
        batch = self._augmenter.batch(self.step)
        # Drop-out and its like draw from here.
        torch.manual_seed(self.plan.seed * 2**32 + self.step)
        self.net.train()
        with torch.autocast(self._device.type, self._amp, enabled=self._amp is not torch.float32):
            logits = first_output(self.net(batch.pictures)).float()
        loss = functional.cross_entropy(logits, batch.targets, label_smoothing=_SMOOTHING)
        if batch.share < 1:
            other = functional.cross_entropy(logits, batch.others, label_smoothing=_SMOOTHING)
            loss = batch.share * loss + (1 - batch.share) * other
        loss.backward()  # type: ignore[no-untyped-call]
        for group, peak in zip(self._groups(), self._peaks, strict=True):
            group["lr"] = peak * moment.rate
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self._follow()
        self.step += 1
        return loss.detach()

    def averaged(self) -> nn.Module:
        """Return a copy of the net with the average of its weights; its batch norms must be recomputed."""
        net: nn.Module = copy.deepcopy(self.net)
        with torch.no_grad():
            for parameter, average in zip(net.parameters(), self._average, strict=True):
                parameter.copy_(average)
        return net.eval()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that the next step depends on, besides the plan and the number of the step."""
        return dict(self._tensors())

    def restore(self, tensors: Mapping[str, torch.Tensor], step: int) -> None:
        """Go on from what :meth:`tensors` returned after ``step`` steps.

        Raises:
            SetupError: it belongs to another net.
        """
        mine = self.tensors()
        if mine.keys() != tensors.keys() or any(mine[name].shape != tensors[name].shape for name in mine):
            raise SetupError("The checkpoint is of another net: give another --work-dir, or delete this one.")
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(tensors[name])
        self.step = step

    def _follow(self) -> None:
        """Move the average of the weights: quickly at first, when they are worth little."""
        keep = min(_AVERAGE, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, list(self.net.parameters()), 1 - keep)

    def _make_state(self) -> None:
        """Let the optimizers make now what they else make at their first step: a checkpoint of step 0 is a whole one."""
        kept = [parameter.detach().clone() for parameter in self.net.parameters()]
        for parameter in self.net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            for parameter, value in zip(self.net.parameters(), kept, strict=True):
                parameter.copy_(value)
            for optimizer in self._optimizers:
                for state in optimizer.state.values():
                    for value in state.values():
                        value.zero_()

    def _groups(self) -> list[dict[str, object]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        names = {parameter: name for name, parameter in self.net.named_parameters()}
        yield from ((f"net.{name}", tensor) for name, tensor in self.net.state_dict().items())
        yield from ((f"average.{name}", average) for name, average in zip(names.values(), self._average, strict=True))
        for optimizer in self._optimizers:
            for parameter, state in optimizer.state.items():
                yield from ((f"optimizer.{names[parameter]}.{key}", value) for key, value in state.items())
