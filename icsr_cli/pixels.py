"""Pixels on their way to a network: gathered from where they lie and normalised, to train and to embed."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from icsr_cli.files import announce
from icsr_cli.threads import ahead
from icsr_cli.types import IntArray

T = TypeVar("T")


class Stored(Protocol):
    """Images, uint8 (n, h, w, 3): a numpy array, a mapped one, a tensor, or what decodes when it is asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, h, w, 3)."""

    @property
    def dtype(self) -> Any:
        """uint8, of numpy or of torch."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def fetch(pixels: Stored, rows: IntArray) -> Tensor:
    """Gather the pixels of ``rows`` (b,) where they lie: uint8 (b, h, w, 3), on the host or on a GPU."""
    if isinstance(pixels, Tensor):
        return pixels.index_select(0, torch.from_numpy(rows).to(pixels.device, non_blocking=True))
    if isinstance(pixels, np.memmap):
        size = int(np.prod(pixels.shape[1:]))
        announce(pixels, rows * size, rows * size + size)
    return torch.from_numpy(np.asarray(pixels[rows]))


def upload(batch: Tensor, device: torch.device) -> Tensor:
    """Bring a batch to the device; a copy from the host to a GPU is pinned, so that nothing waits for it."""
    if device.type == "cuda" and batch.device.type == "cpu":
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)


def upcoming(
    pixels: Stored, items: Iterable[T], rows: Callable[[T], IntArray]
) -> Generator[tuple[T, Callable[[], Tensor]]]:
    """Give each item with a call for the pixels of ``rows(item)``, which ``fetch`` gathers.

    What is not in memory as such, but read from a disk or decoded, is fetched by a thread of its own while
    the caller works on the items before. What goes wrong there is raised by the call. To be closed
    (``contextlib.closing``), so that the thread ends with it.
    """

    def work(item: T) -> Tensor:
        return fetch(pixels, rows(item))

    if isinstance(pixels, Tensor) or type(pixels) is np.ndarray:
        for item in items:
            yield item, partial(work, item)
        return
    with ThreadPoolExecutor(1) as pool, closing(ahead(pool, work, items)) as queue:
        for item, future in queue:
            yield item, future.result


def resident(pixels: Stored, device: torch.device) -> Tensor:
    """Bring all pixels to the device, some at a time: uint8 (n, h, w, 3)."""
    n, some = len(pixels), 1024
    whole = torch.empty(tuple(pixels.shape), dtype=torch.uint8, device=device)
    for first in range(0, n, some):
        rows = np.arange(first, min(first + some, n))
        whole[first : first + some] = upload(fetch(pixels, rows), device)
    return whole


def scaled(rows: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Turn uint8 rows of pixels (..., w * 3) into float32: times ``scale`` (w * 3,), plus ``shift``.

    Channels are innermost, so that a whole row is one vector.
    """
    return rows.to(torch.float32).mul_(scale).add_(shift)


def as_images(rows: Tensor, width: int) -> Tensor:
    """View rows of pixels (b, h, w * 3) as images (b, 3, h, w), channels-last in memory."""
    b, h, _ = rows.shape
    return rows.view(b, h, width, 3).permute(0, 3, 1, 2)
