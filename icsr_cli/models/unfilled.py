"""Layers that hold no numbers, to be looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

#: What layers are filled by when they are made.
_FILL = frozenset(
    getattr(torch.Tensor, name) for name in ("normal_", "uniform_", "erfinv_", "clamp_", "mul_", "add_")
)


class _Unfilled(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in _FILL else func(*args, **(kwargs or {}))


@contextmanager
def unfilled() -> Iterator[None]:
    """Make layers on the device ``meta``. To fill them changes nothing there, and takes most of the time."""
    import torchvision.models  # noqa: F401 - some releases make tensors while they are imported

    with torch.device("meta"), _Unfilled():
        yield
