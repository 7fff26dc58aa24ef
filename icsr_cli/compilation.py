"""Loops that numba compiles."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba


def compiled(*, fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function at its first call; it releases the GIL.

    What was compiled is kept beside the package, else in the user's cache; where neither can be written to
    (a container without a home), it is compiled in each process.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        compile_it = numba.njit(nogil=True, fastmath=fastmath)(function)
        with suppress(RuntimeError):  # no place for it
            compile_it.enable_caching()
        return compile_it

    return decorate
