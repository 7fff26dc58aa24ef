"""Loops that numba compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(*, fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function at its first call; it releases the GIL.

    What was compiled is kept beside the package, else in the user's cache; where neither can be written to
    (a container without a home), it is compiled in each process.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        how: dict[str, Any] = {"nogil": True, "fastmath": fastmath}
        try:
            made: Callable[..., Any] = numba.njit(cache=True, **how)(function)
        except RuntimeError:  # no place for it
            made = numba.njit(**how)(function)
        return made

    return decorate


@compiled()
def find(parents: Any, node: int) -> int:
    """Give the root of ``node`` and halve the path to it."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node
