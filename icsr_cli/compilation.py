"""Loops that numba compiles."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from icsr_cli.errors import UsageError, reason

try:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Environment variable 'NUMBA_")
        import numba
        from numba.core import caching
except (ValueError, RuntimeWarning) as fault:  # NUMBA_NUM_THREADS=0, for one
    raise UsageError(f"numba refuses a variable NUMBA_* of the environment: {reason(fault)}.") from None


_FunctionCache: Any = caching.FunctionCache  # it carries no types


class _Cache(_FunctionCache):  # type: ignore[misc]
    """What was compiled before: no fault of its files ends the work, which can be compiled again."""

    def load_overload(self, *wanted: Any) -> Any:
        try:
            return super().load_overload(*wanted)
        except Exception:  # whatever a damaged pickle raises
            with suppress(OSError):
                self.flush()  # else nothing could be added to it
            return None

    def save_overload(self, *made: Any) -> None:
        with suppress(OSError):  # a full disk
            super().save_overload(*made)


def compiled(*, fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function at its first call; it releases the GIL.

    What was compiled is kept beside the package, else in the user's cache; where neither can be written to
    (a container without a home, a full disk), it is compiled in each process.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        made: Any = numba.njit(nogil=True, fastmath=fastmath)(function)
        with suppress(RuntimeError):  # no place for it
            made._cache = _Cache(function)
        return made  # type: ignore[no-any-return]

    return decorate


@compiled()
def find(parents: Any, node: int) -> int:
    """Give the root of ``node`` and halve the path to it."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node
