"""Processes that work for one that waits, which alone answers an interrupt."""

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process, resource_tracker
from typing import Any, TypeVar

from icsr_cli.errors import DatasetError, reason
from icsr_cli.threads import ahead

T = TypeVar("T")
R = TypeVar("R")


class Processes(ProcessPoolExecutor):
    """Spawned processes that do not hear SIGINT, from their first moment on; their parent does.

    Never forked: torch's threads and CUDA do not survive it. They end where their parent is killed.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, get_context("spawn"), initializer=_begin)
        # All start before the thread that minds them, as with fork: where one is killed while another is
        # started, this thread closes the pipes of the new one, and may die itself with a traceback.
        self._safe_to_dynamically_spawn_children = False

    def submit(self, *work: Any, **options: Any) -> Future[Any]:
        """Submit work; a process that is started for it inherits that SIGINT is blocked.

        Raises BrokenProcessPool also where one cannot be started.
        """
        resource_tracker.ensure_running()  # it would unblock the signal when it is started by the first one
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*work, **options)
        except OSError as error:
            raise BrokenProcessPool("a process cannot be started") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this a killed parent leaves processes that wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def in_processes(
    work: Callable[[T], R], jobs: Collection[T], workers: int, task: str, advice: str
) -> Iterator[R]:
    """Give ``work(job)`` for every job, in order, by up to so many processes, whose ``task`` is named.

    Raises DatasetError with ``advice`` where one was killed or could not be started, and what ``work`` does.
    """
    others = set(active_children())
    with Processes(min(workers, len(jobs))) as pool:  # the parent stops, after their jobs
        try:
            for _, future in ahead(pool, work, jobs, 4 * workers):
                yield future.result()
        except BrokenProcessPool as error:
            # Where one cannot be started the others wait for work, and would be waited for for ever.
            for process in set(active_children()) - others:
                process.terminate()
            fault = "was killed, often for want of memory"
            if isinstance(error.__cause__, OSError):
                fault = f"could not be started ({reason(error.__cause__)})"
            raise DatasetError(f"A process that {task} {fault}. {advice}") from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
