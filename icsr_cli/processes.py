"""Processes that work for one that waits, which alone answers an interrupt."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, resource_tracker
from typing import Any


class Processes(ProcessPoolExecutor):
    """Spawned processes that do not hear SIGINT, from their first moment on; their parent does.

    Never forked: torch's threads and CUDA do not survive it. ``begin`` is called in each, once.
    """

    def __init__(self, workers: int, begin: Callable[[], None] | None = None) -> None:
        super().__init__(workers, get_context("spawn"), initializer=_begin, initargs=(begin,))

    def submit(self, *work: Any, **options: Any) -> Future[Any]:
        """Submit work; a process that is started for it inherits that SIGINT is blocked.

        Raises BrokenProcessPool also where one is killed while another is started: pipes are closed then.
        """
        resource_tracker.ensure_running()  # it would unblock the signal when it is started by the first one
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*work, **options)
        except OSError as error:
            raise BrokenProcessPool("a process was killed, or cannot be started") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(begin: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if begin is not None:
        begin()
