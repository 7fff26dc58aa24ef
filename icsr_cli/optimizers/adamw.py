"""AdamW (Loshchilov and Hutter, arXiv 1711.05101): Adam with weight decay beside the gradient."""

from collections.abc import Iterable

from pydantic import Field
from torch.nn import Parameter
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler

from icsr_cli.optimizers.common import Schedule, grouped, schedule_of


class Options(Schedule):
    """The rate, its schedule and the weight decay: a step takes ``lr * weight_decay`` off each weight."""

    weight_decay: float = Field(0.05, ge=0)


def build(parameters: Iterable[Parameter], options: Options) -> tuple[AdamW, LRScheduler]:
    """Give the optimiser of ``parameters`` and its schedule, one step an epoch."""
    groups = grouped(parameters, options)
    optimizer = AdamW(groups, lr=options.lr, weight_decay=options.weight_decay, fused=True)
    return optimizer, schedule_of(optimizer, options, parameters)
