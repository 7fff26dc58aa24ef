"""Stochastic gradient descent with momentum, as the published recipes train vision transformers."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field, model_validator
from torch.nn import Parameter
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler

from icsr_cli.optimizers.common import Schedule, grouped, schedule_of


class Options(Schedule):
    """Rate, schedule, weight decay (part of the gradient), and the momentum, plain or Nesterov's."""

    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _momentum_of_nesterov(self) -> Options:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov looks ahead by the momentum, and momentum is 0; leave one of them out")
        return self


def build(parameters: Iterable[Parameter], options: Options) -> tuple[SGD, LRScheduler]:
    """Give the optimiser of ``parameters`` and its schedule, one step an epoch."""
    optimizer = SGD(
        grouped(parameters, options),
        lr=options.lr,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        nesterov=options.nesterov,
        fused=True,
    )
    return optimizer, schedule_of(optimizer, options, parameters)
