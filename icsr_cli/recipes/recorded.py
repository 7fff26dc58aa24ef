"""A step of the network as one piece of work for the GPU, where Python would send some thousand small ones.

A GPU is done with an operation on a small batch before the next one is sent, and BatchNorm over groups of
images has several times as many. A CUDA graph sends them all at once: the same operations, the same numbers.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from icsr_cli.errors import TrainingError, reason

Call = Callable[[Tensor], Tensor]


class Recorded(nn.Module):
    """A network (b, 3, h, w) -> (b, d) on a GPU whose training is recorded at its first batch and played.

    A batch of another shape than the first is computed in the usual way.

    Raises TrainingError where the network does what cannot be recorded, such as to wait for the GPU. torch's
    generator of the GPU may not work afterwards, so no other way is tried.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._known: dict[torch.Size, Call] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Compute images (b, 3, h, w), in training."""
        if self._known is None:
            self._known = {images.shape: self._record(images)}
        return self._known.get(images.shape, cast("Call", self.module))(images)

    def forget(self) -> None:
        """Give back the memory of the recording, as much as a step takes; the next batch is recorded anew."""
        self._known = None
        gc.collect()  # a recording is held by what it is made of

    def _record(self, images: Tensor) -> Call:
        """Record forward and backward; running statistics and dice are afterwards what they were."""
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        try:
            with _no_collection():
                played = _play(_Whole(self.module), images)
        except RuntimeError as error:
            if "captur" not in str(error):
                raise
            raise TrainingError(
                f"The network cannot be recorded as a CUDA graph ({reason(error)}): it may wait for the GPU. "
                "Train it with --set cuda_graph=false, which sends its operations one by one."
            ) from error
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return played


class _Whole(nn.Module):
    """Stands for a network whose own ``forward`` is to stay as it is."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, images: Tensor) -> Any:
        return self.inside(images)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let no recording be freed while another is made, which it would break."""
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _play(network: nn.Module, images: Tensor) -> Call:
    """Record ``network`` with the precision that holds here."""
    device = images.device
    # It comes from the stream of the recording; torch lets the two wait for each other.
    warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
    autocast = torch.autocast(
        device.type,
        torch.get_autocast_dtype(device.type),
        enabled=torch.is_autocast_enabled(device.type),
        cache_enabled=False,
    )
    with torch.cuda.device(device), torch.random.fork_rng([device]), autocast:
        return cast("Call", torch.cuda.make_graphed_callables(network, (images,), allow_unused_input=True))
