"""Work on several threads: compiled loops, and what is begun before it is needed.

A kernel that releases the GIL works on rows ``[low, high)``, and Python's own threads share the rows.
(numba's own ``prange`` sets the number of threads of the whole process, and aborts it when two threads use
it at once and neither OpenMP nor TBB is there.)
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

#: Pieces of work, parallel in themselves, that run at the same time.
_AT_ONCE: Final = 4

T = TypeVar("T")
R = TypeVar("R")


def usable_cpus() -> int:
    """Count the CPUs this process may run on, or fewer where its container has a share of them."""
    from joblib import cpu_count  # type: ignore[import-untyped]

    return int(cpu_count())


def thread_count() -> int:
    """Give torch's number of threads where torch is there, else OMP_NUM_THREADS, else the cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(asked)) if asked.isdecimal() else usable_cpus()


def row_ranges(n: int, parts: int | None = None, *, first: int = 0) -> Iterator[tuple[int, int]]:
    """Cut ``range(first, n)`` into at most ``parts`` pieces of nearly the same length.

    Default: so many that the threads finish together.
    """
    parts = 16 * thread_count() if parts is None else parts
    edges = np.linspace(first, n, min(parts, n - first) + 1).astype(np.int64)
    return ((int(low), int(high)) for low, high in pairwise(edges))


def blocks(m: int, n: int, numbers: int) -> Iterator[slice]:
    """Cut m rows of n numbers each into blocks of at most so many numbers, or of one row."""
    step = max(1, numbers // max(1, n))
    return (slice(low, low + step) for low in range(0, m, step))


def in_threads(
    work: Callable[[int, int], T], ranges: Iterable[tuple[int, int]], *, multiplies: bool = False
) -> list[T]:
    """Call ``work(low, high)`` for every range, on several threads; results in order.

    Where it ``multiplies`` matrices, each product takes the thread that asks for it alone.
    """
    threads = thread_count()
    if threads == 1:
        return [work(low, high) for low, high in ranges]
    with (
        _one_thread_each(threads) if multiplies else nullcontext(lambda: None) as begin,
        ThreadPoolExecutor(threads, initializer=begin) as pool,
    ):
        return list(pool.map(lambda span: work(*span), ranges))


@contextmanager
def _one_thread_each(threads: int) -> Iterator[Callable[[], None]]:
    """Have numpy's library multiply in the thread that asks; gives what a thread calls so that torch does."""
    set_number = getattr(sys.modules.get("torch"), "set_num_threads", lambda number: None)
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            yield lambda: set_number(1)
        finally:  # a thread sets it for the process, too
            set_number(threads)


def at_once(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call ``work(item)`` for every item, a few at a time; results in order.

    For pieces that are parallel in part only: while one works on one thread, others fill the rest. Each has
    the memory and the threads of its own, so there are few. Matrix products take one thread meanwhile.
    """
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(max_workers=min(thread_count(), _AT_ONCE)) as pool,
    ):
        return list(pool.map(work, items))


def ahead(
    pool: Executor, work: Callable[[T], R], items: Iterable[T], depth: int = 2
) -> Generator[tuple[T, Future[R]]]:
    """Give each item with the future of ``work(item)``, in order; ``pool`` has then begun the next ``depth``.

    Closed early (``contextlib.closing``), it takes back what has not begun.
    """
    begun: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            begun.append((item, pool.submit(work, item)))
            if len(begun) > depth:
                yield begun.popleft()
        while begun:
            yield begun.popleft()
    finally:
        for _, future in begun:
            future.cancel()
