"""Layers that hold no numbers, to be looked at."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

#: What layers are filled by when they are made.
_FILL = frozenset(
    getattr(Tensor, name) for name in ("normal_", "uniform_", "erfinv_", "clamp_", "mul_", "add_")
)
#: What gives the shape that it is given, whatever the images: no misfit would show in it.
_KEEP_THE_SHAPE: frozenset[Callable[..., Any]] = frozenset(
    getattr(place, name)
    for place, names in (
        (functional, "batch_norm layer_norm instance_norm group_norm dropout softmax"),
        (functional, "relu gelu silu hardswish"),
        (torch, "relu relu_ sigmoid"),
        (Tensor, "softmax sigmoid"),
    )
    for name in names.split()
)


class _Skipping(TorchFunctionMode):
    def __init__(self, skipped: frozenset[Callable[..., Any]]) -> None:
        super().__init__()
        self._skipped = skipped

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if args and func in self._skipped else func(*args, **(kwargs or {}))


class _OnlyShapes(_Skipping):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear and len(args) > 2:  # adding the bias keeps the shape, too
            args = args[:2]
        return super().__torch_function__(func, types, args, kwargs)


@contextmanager
def unfilled() -> Iterator[None]:
    """Make layers on the device ``meta``. To fill them changes nothing there, and takes most of the time."""
    with torch.device("meta"), _Skipping(_FILL):
        yield


@contextmanager
def only_shapes() -> Iterator[None]:
    """Follow shapes through such layers. What keeps a shape is passed over: it takes most of the time."""
    with torch.no_grad(), _OnlyShapes(_KEEP_THE_SHAPE):
        yield
