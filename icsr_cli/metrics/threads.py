"""How many threads the compiled kernels of this room take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch


@contextmanager
def as_many_as_torch() -> Iterator[None]:
    """Let numba use torch's number of threads, and leave that number as it was.

    numba's OpenMP layer sets the number for the whole process. Were it not put back, a program that asked
    torch for one thread would train with all of them from its first evaluation on, and no longer repeat
    its own results bit for bit.
    """
    threads = torch.get_num_threads()
    try:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        yield
    finally:
        torch.set_num_threads(threads)
