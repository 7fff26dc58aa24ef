"""A step of the network as one piece of work for the GPU, where Python would send some thousand small ones.

A GPU is done with an operation on a small batch before the next one is sent, and BatchNorm over groups of
images has several times as many. A CUDA graph sends them all at once: the same operations, the same numbers.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from icsr_cli.errors import TrainingError, reason

Call = Callable[[Tensor], Tensor]


class Recorded(nn.Module):
    """A network (b, 3, h, w) -> (b, d) on a GPU whose training is recorded at its second batch and played.

    The first shows what a step takes. Where there is not twice that memory, every batch is computed in the
    usual way, and ``tell`` is told so once; else those that have another shape than the second.

    Raises TrainingError where the network does what cannot be recorded, such as to wait for the GPU. torch's
    generator of the GPU may not work afterwards, so no other way is tried.
    """

    def __init__(self, module: nn.Module, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.module = module
        self._tell = tell
        self._begun = False
        self._known: dict[torch.Size, Call] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Compute images (b, 3, h, w), in training."""
        if self._known is None and self._begun:
            self._known = self._record(images)
        self._begun = True
        return (self._known or {}).get(images.shape, cast("Call", self.module))(images)

    def forget(self) -> None:
        """Give back the memory of the recording, as much as a step takes; batches are the first again.

        So an epoch throws the same dice after a resumption, which may be others where they are recorded.
        """
        self._begun = False
        if self._known:
            self._known = None
            gc.collect()  # a recording is held by what it is made of

    def _record(self, images: Tensor) -> dict[torch.Size, Call]:
        """Record forward and backward; running statistics and dice are afterwards what they were."""
        step, free = _memory(images.device)
        if free < 2 * step:
            self._tell(
                f"Operations are sent to the GPU one by one: to record a step takes {2 * step / 1e9:.1f} GB "
                f"of its memory, and {free / 1e9:.1f} are free."
            )
            return {}
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        try:
            with _no_collection():
                # Within another, as the network's own ``forward`` is to stay as it is.
                played = _play(nn.Sequential(self.module), images)
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
        return {images.shape: played}


def _memory(device: torch.device) -> tuple[int, int]:
    """Give the bytes that a step has taken at most, and those that are free; none are kept for later."""
    gc.collect()
    torch.cuda.empty_cache()  # what a trial of the recording leaves is not given back before the recording
    held = torch.cuda.memory_allocated(device)
    free, _ = torch.cuda.mem_get_info(device)
    return torch.cuda.max_memory_allocated(device) - held, free


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let no recording be freed while another is made, which it would break."""
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
