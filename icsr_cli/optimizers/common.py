"""What the optimisers share: their options, the parameters they are given, groups of them, the schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

from icsr_cli import choices
from icsr_cli.errors import InputError


class Schedule(choices.Options):
    """The rate ``lr`` and its way over the epochs; what parts of the network have of it, and of the decay.

    ``schedule``: ``step`` multiplies the rate by ``gamma`` every ``step_size`` epochs, or after each of
    ``milestones``; ``cosine`` lets it fall along half a cosine, from the end of the warm-up towards 0 after
    the last epoch (Loshchilov and Hutter, arXiv 1608.03983, without restarts). Over the first ``warmup``
    epochs it rises in equal steps to ``lr``, which it has in the epoch after them. ``layer_decay``: each
    block of the network has this share of the rate of the next one; what stands on the last has the whole
    (arXiv 2106.08254). ``decay_norms``: ``weight_decay`` of norms, biases and positions as well.
    """

    lr: float = Field(3.5e-4, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    step_size: int = Field(20, ge=1)
    gamma: float = Field(0.1, gt=0, le=1)
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    warmup: int = Field(0, ge=0)
    schedule: Literal["step", "cosine"] = "step"
    layer_decay: float = Field(1.0, gt=0, le=1)
    decay_norms: bool = True

    @model_validator(mode="after")
    def _one_way_down(self) -> Schedule:
        if self.schedule == "cosine" and self.milestones:
            raise ValueError("milestones are steps, and schedule is cosine; leave one of them out")
        if len(set(self.milestones)) < len(self.milestones):
            raise ValueError("milestones name an epoch twice; name each once")
        return self


class Trained(list[Parameter]):
    """The parameters that train: a list, as torch's optimisers take it, and what is known of each.

    Attributes:
        names: of each, in the network.
        depths: of each, the number of its block, from 0 at the images.
        decays: of each, whether weight decay is usual for it: not for norms, biases and positions.
        epochs: how long they train.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        *,
        names: Sequence[str] = (),
        depths: Sequence[int] = (),
        decays: Sequence[bool] = (),
        epochs: int = 0,
    ) -> None:
        super().__init__(parameters)
        self.names, self.depths, self.decays, self.epochs = names, depths, decays, epochs


def grouped(parameters: Iterable[Parameter], options: Schedule) -> list[Any]:
    """Give what torch's optimisers take: the parameters, or groups with rates and decays of their own.

    Raises:
        InputError: groups are asked for, and the parameters are no ``Trained`` that says what each is.
    """
    trained = list(parameters)
    if options.layer_decay == 1 and options.decay_norms:
        return trained
    if not isinstance(parameters, Trained) or not len(parameters.depths) == len(parameters.decays) == len(
        trained
    ):
        raise InputError(
            "parameters: layer_decay and decay_norms need to know what each is. Give a Trained with depths "
            "and decays, or leave these options at 1 and true."
        )
    top = max(parameters.depths, default=0)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for parameter, depth, decays in zip(trained, parameters.depths, parameters.decays, strict=True):
        own = {
            "params": [],
            "lr": options.lr * options.layer_decay ** (top - depth),
            "weight_decay": options.weight_decay if decays or options.decay_norms else 0.0,
        }
        groups.setdefault((depth, decays or options.decay_norms), own)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def schedule_of(optimizer: Optimizer, options: Schedule, parameters: Iterable[Parameter] = ()) -> LRScheduler:
    """Give the schedule of the options, one step an epoch; for ``cosine``, ``parameters`` are a ``Trained``.

    Raises InputError for a cosine where nothing says how many epochs there are.
    """
    epochs = getattr(parameters, "epochs", 0)
    if options.schedule == "cosine" and not epochs:
        raise InputError("parameters: a cosine schedule needs the number of epochs. Give a Trained with it.")
    if options.schedule == "step" and not (options.milestones or options.warmup):
        return StepLR(optimizer, options.step_size, options.gamma)

    def factor(epoch: int) -> float:
        rise = min(1.0, (epoch + 1) / (options.warmup + 1))
        if options.schedule == "cosine":
            share = (epoch - options.warmup) / max(1, epochs - options.warmup)
            return rise * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2
        drops = (
            sum(epoch >= at for at in options.milestones)
            if options.milestones
            else epoch // options.step_size
        )
        return float(rise * options.gamma**drops)

    return LambdaLR(optimizer, factor)
