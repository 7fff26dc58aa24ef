"""Adam (Kingma and Ba, arXiv 1412.6980) with a schedule in epochs."""

from collections.abc import Iterable

from torch.nn import Parameter
from torch.optim import Adam
from torch.optim.lr_scheduler import LRScheduler

from icsr_cli.optimizers.common import Schedule, grouped, schedule_of


class Options(Schedule):
    """The rate, its schedule and the weight decay, which is part of the gradient."""


def build(parameters: Iterable[Parameter], options: Options) -> tuple[Adam, LRScheduler]:
    """Give the optimiser of ``parameters`` and its schedule, one step an epoch."""
    groups = grouped(parameters, options)
    optimizer = Adam(groups, lr=options.lr, weight_decay=options.weight_decay, fused=True)
    return optimizer, schedule_of(optimizer, options, parameters)
