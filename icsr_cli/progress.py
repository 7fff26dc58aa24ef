"""What the engine reports to. It knows nothing of terminals; the command line implements this."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

Figure: TypeAlias = "float | int | str"
#: Times a part of the work, for those who measure: called with its name, used around it.
Watch: TypeAlias = Callable[[str], AbstractContextManager[Any]]


def unwatched(part: str) -> AbstractContextManager[Any]:
    """Let the work pass untimed."""
    return nullcontext()


class Task(AbstractContextManager["Task"]):
    """One bar: a known amount of work that moves on; this one nobody sees. It is open with its context."""

    def advance(self, count: int = 1) -> None:
        """Move on by ``count`` units."""

    def show(self, figures: Callable[[], Mapping[str, Figure]]) -> None:
        """Set the live figures beside the bar.

        ``figures`` is called only when the bar is drawn, so that a loss on the GPU is not waited for.
        """

    def __exit__(self, *error: object) -> None:
        """Close the bar."""


class Progress:
    """Where the engine's news go; this one tells nobody."""

    def task(self, title: str, total: int, unit: str = "it") -> Task:
        """Open a bar of ``total`` units (used as a context manager)."""
        return Task()

    def report(self, title: str, figures: Mapping[str, Figure]) -> None:
        """Say that a part is finished, an epoch for instance, and what came of it."""

    def note(self, message: str) -> None:
        """Say something the user should read, once."""

    def warn(self, message: str) -> None:
        """Say what could not be done, or will surprise."""
