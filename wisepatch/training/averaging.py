"""Average the weights on the way: an exponential moving average, or the mean of the last quarter (SWA)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from wisepatch.train_config import TrainConfig

SWA_BEGINS = 0.75  # of the steps (Izmailov et al. 2018, section 4: three quarters of the budget)


class Average:
    """An average of the trained parameters over steps; this one, where nobody asked for any, is that of none."""

    holds_rate_from: int = sys.maxsize  # the step after which the learning rate stays as it is

    def __init__(self) -> None:
        """Begin without weights."""
        self.tensors: dict[str, torch.Tensor] = {}
        self.parameters: Mapping[str, torch.nn.Parameter] = {}

    def update(self, step: int) -> None:
        """Take in the weights after ``step``, counted from 1."""

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from an average that was saved."""
        for name, tensor in tensors.items():
            self.tensors[name] = tensor.to(self.parameters[name].device)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model for a while."""
        trained = {name: self.parameters[name].detach().clone() for name in self.tensors}
        self.put_in_place()
        try:
            yield
        finally:
            self._write(trained)

    def put_in_place(self) -> None:
        """Put the average into the model for good."""
        self._write(self.tensors)

    @torch.no_grad()
    def _write(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            self.parameters[name].copy_(tensor)


class MovingAverage(Average):
    """The exponential moving average of the weights, from the start on: each step counts ``1 - decay``.

    That is the mean teacher's (Tarvainen and Valpola 2017, section 2). Early steps count more, ``1 - (1 + step) / (10 + step)`` as
    in TensorFlow, or the start would stay in short trainings.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        """Begin with the weights as they are."""
        super().__init__()
        self.parameters, self.decay = parameters, decay
        self.tensors = {name: each.detach().clone() for name, each in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after ``step``."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, average in self.tensors.items():
            average.lerp_(self.parameters[name], share)


class LastQuarter(Average):
    """The mean of the weights after each of the last steps (Izmailov et al. 2018, SWA, algorithm 1), at a constant rate."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], steps: int) -> None:
        """Wait until three quarters of ``steps`` are done."""
        super().__init__()
        self.parameters = parameters
        self.holds_rate_from = int(SWA_BEGINS * steps)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step``, if it is one of the last."""
        number = step - self.holds_rate_from
        for name, parameter in self.parameters.items():
            if number == 1:
                self.tensors[name] = parameter.detach().clone()
            elif number > 1:
                self.tensors[name].lerp_(parameter, 1 / number)


def average_of(config: TrainConfig, parameters: Mapping[str, torch.nn.Parameter], steps: int) -> Average:
    """Return the average that the settings ask for."""
    if config.ema is not None:
        return MovingAverage(parameters, config.ema)
    return LastQuarter(parameters, steps) if config.swa else Average()
