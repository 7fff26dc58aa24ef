"""SIGINT and SIGTERM end training between two steps, and any other work at once but tidily."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from icsr_cli.errors import Interrupted


class Interruption:
    """Remembers a signal until the engine asks."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def check(self) -> None:
        """Raise ``Interrupted`` where a signal has come."""
        if self.signal_number is not None:
            raise stopped(self.signal_number)


def stopped(signal_number: int, resume: str = "--resume") -> Interrupted:
    """Tell of a signal that ended a command which had begun a run."""
    name = signal.Signals(signal_number).name
    return Interrupted(
        f"{name}: stopped. Every finished epoch is saved; go on with the same command and {resume}.",
        signal_number=signal_number,
    )


class Stop(KeyboardInterrupt):
    """A signal that ends the command at once; whatever tidies up after Ctrl-C does so after it, too."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


class AtOnce:
    """The handler of both outside training: ends the command, and remembers that it was asked to.

    An exception that is raised while a library is imported, or in a callback of one, may be swallowed there.
    """

    asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise Stop."""
        self.asked = True
        raise Stop(number)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Catch the first SIGINT or SIGTERM; a second one acts at once, as without us.

    Outside the main thread signals cannot be caught, and the flag stays down.
    Raises KeyboardInterrupt where a signal came before, and what it raised was swallowed.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    outside = before[signal.SIGINT]
    if isinstance(outside, AtOnce) and outside.asked:
        raise KeyboardInterrupt

    def remember(number: int, frame: FrameType | None) -> None:
        interruption.signal_number = number
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, remember)
    try:
        yield interruption
    finally:
        restore()
