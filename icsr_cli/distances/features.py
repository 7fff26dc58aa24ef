"""What every function of this room asks of its features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch

from icsr_cli.errors import InputError

T = TypeVar("T")


def check_features(features: Any, *, device: Any = None) -> torch.Tensor:
    """Give ``features`` as a contiguous float32 (n, d) tensor on ``device`` (default: where they are).

    Numpy arrays are not copied where they are float32 already.

    Raises:
        InputError: no 2-D array of numbers; no rows or columns; NaN, infinite or zero rows.

    """
    if not isinstance(features, torch.Tensor):
        array = np.asarray(features)
        if array.dtype.kind not in "fiu":
            raise InputError(f"features must be an array of numbers, got dtype {array.dtype}.")
        array = np.ascontiguousarray(array, dtype=np.float32)
        features = torch.from_numpy(array if array.flags.writeable else array.copy())
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(
            f"features must have shape (n, d) with n >= 1 and d >= 1, got {tuple(features.shape)}."
        )
    target = features.device if device is None else torch.device(device)
    result: torch.Tensor = features.detach().to(device=target, dtype=torch.float32).contiguous()
    # A row's sum of squares is finite and positive exactly where the row can be compared with others.
    squares = torch.linalg.vector_norm(result, dim=1)
    bad = ~torch.isfinite(squares)
    if bool(bad.any()):
        raise InputError(f"features must be finite, {_rows(bad)} hold NaN, infinite or overflowing numbers.")
    zero = squares == 0
    if bool(zero.any()):
        raise InputError(
            f"features must not hold zero vectors, {_rows(zero)} are zero. "
            "Leave those images out, or look at the network that gave these features."
        )
    return result


def unit_rows(features: torch.Tensor) -> torch.Tensor:
    """Divide each row by its length; rows that are of length 1 to 1e-6 already are not copied."""
    norms: torch.Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    if bool(((norms - 1).abs() <= 1e-6).all()):
        return features
    return features / norms


def check_count(name: str, value: Any, low: int) -> int:
    """Give ``value`` as an int of at least ``low``, or raise an InputError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}.")
    return int(value)


def row_ranges(n: int, parts: int) -> Iterator[tuple[int, int]]:
    """Cut ``range(n)`` into at most ``parts`` pieces of nearly the same length."""
    edges = np.linspace(0, n, min(parts, n) + 1).astype(np.int64)
    return ((int(low), int(high)) for low, high in pairwise(edges))


def in_threads(work: Callable[[int, int], T], ranges: Iterable[tuple[int, int]]) -> list[T]:
    """Call ``work(low, high)`` for every range on torch's number of threads; results in order.

    The kernels release the GIL. (numba's own ``prange`` aborts the process when two threads of it
    use it at once and neither OpenMP nor TBB is there; this does not.)
    """
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        return list(pool.map(lambda span: work(*span), ranges))


def _rows(mask: torch.Tensor) -> str:
    rows = mask.nonzero().flatten().tolist()
    shown = ", ".join(str(row) for row in rows[:5])
    return f"{len(rows)} rows ({shown}{', ...' if len(rows) > 5 else ''})"
