"""Errors a person can act on: what came, what was expected, what to do next."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def printable(text: str) -> str:
    """Give a text as it may be shown: what would move the cursor, or cannot be written, is escaped."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape", "surrogatepass").decode()
        for one in text
    )


def not_utf8(names: Iterable[str]) -> list[str]:
    """Give the names of files that are no UTF-8: not every format can hold them."""
    return [name for name in names if not name.isascii() and any("\ud800" <= one <= "\udfff" for one in name)]


def some(names: Sequence[str], most: int = 5) -> str:
    """Name the first of several: a, b and 3 more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number of things: 1 image, 2 images."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ask for the one that comes nearest, as a sentence behind another; nothing where none is near.

    Where none is spelt alike it is the shortest that ``name`` is a part of.
    """
    there = [*known]
    wider = (one for one in there if len(name) > 2 and name in one)
    near = get_close_matches(name, there, n=1) or sorted(wider, key=len)
    return f" Did you mean {near[0]!r}?" if near else ""


def reason(error: BaseException) -> str:
    """Give what is said of a fault in one short line that can be shown, without its full stop.

    Of what the system says the words alone: whoever shows it names the file.
    """
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    shown = printable(said.strip().partition("\n")[0]).removesuffix(".")
    return (shown if len(shown) <= 200 else f"{shown[:200]}...") or type(error).__name__


class IcsrError(Exception):
    """Base of every error that the user can mend; the command line shows it without a traceback.

    The message is complete as it stands: it says what came, what was expected and what to do next.
    ``exit_code`` is what the process returns (1: failed, 2: wrong usage).
    """

    exit_code = 1


class UsageError(IcsrError):
    """A wrong option, argument or setting."""

    exit_code = 2


class InputError(IcsrError, ValueError):
    """An argument whose shape, type or value does not fit; the message names the argument."""


class DatasetError(IcsrError):
    """A data set that is missing, damaged or not in its published layout."""


class ModelError(IcsrError):
    """Weights that are missing, damaged, of another architecture, or not safe to open."""


class RunError(IcsrError):
    """A run folder that is missing, incomplete, or does not fit what is asked of it."""


class TrainingError(IcsrError):
    """Training cannot go on; every finished epoch is on disk."""


class MissingExtraError(IcsrError):
    """An optional library cannot be imported; the message says why, and holds the line that installs it."""

    def __init__(self, library: str, extra: str, purpose: str, error: ImportError) -> None:
        absent = isinstance(error, ModuleNotFoundError)
        state = "is not installed" if absent else f"cannot be loaded ({reason(error)})"
        super().__init__(
            f"{purpose} needs the library {library!r}, which {state}. "
            f"Install it {'' if absent else 'anew '}with: pip install 'icsr[{extra}]'"
        )


class Interrupted(IcsrError):  # noqa: N818 - not a fault: the user asked for it
    """SIGINT or SIGTERM arrived; the state is saved and ``--resume`` goes on from it."""

    exit_code = 130

    def __init__(self, message: str, *, signal_number: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def room(count: int) -> str:
    """Give a number of bytes as one reads it: 1.2 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
