"""Adam with a schedule in epochs: linear warm-up, then steps."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field
from torch.nn import Parameter
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

from icsr_cli import choices


class Options(choices.Options):
    """The rate ``lr`` is multiplied by ``gamma`` every ``step_size`` epochs, or after each of ``milestones``.

    Over the first ``warmup`` epochs it rises in equal steps to ``lr``, which it has in the epoch after them.
    """

    lr: float = Field(3.5e-4, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    step_size: int = Field(20, ge=1)
    gamma: float = Field(0.1, gt=0, le=1)
    milestones: tuple[int, ...] = ()
    warmup: int = Field(0, ge=0)


def build(parameters: Iterable[Parameter], options: Options) -> tuple[Adam, LRScheduler]:
    """Give the optimiser of ``parameters`` and its schedule, one step an epoch."""
    optimizer = Adam(parameters, lr=options.lr, weight_decay=options.weight_decay, fused=True)
    return optimizer, schedule_of(optimizer, options)


def schedule_of(optimizer: Adam, options: Options) -> LRScheduler:
    """Give the schedule of the options."""
    if not (options.milestones or options.warmup):
        return StepLR(optimizer, options.step_size, options.gamma)

    def factor(epoch: int) -> float:
        drops = (
            sum(epoch >= at for at in options.milestones)
            if options.milestones
            else epoch // options.step_size
        )
        return float(min(1.0, (epoch + 1) / (options.warmup + 1)) * options.gamma**drops)

    return LambdaLR(optimizer, factor)
