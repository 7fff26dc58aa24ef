"""The checks that every room makes of what it is given: one fault, one message that names the argument."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from icsr_cli.errors import InputError, reason
from icsr_cli.types import NO_CLUSTER, IntArray, Neighbours


def as_numpy(array: Any) -> Any:
    """Give an array or tensor as a numpy array, on the host; bfloat16, which numpy has not, as float32."""
    if not hasattr(array, "detach"):
        return np.asarray(array)
    array = array.detach().cpu()
    return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()


def in_kind(found: Any, given: Any) -> Any:
    """Give an array or tensor in the kind of ``given``: as a tensor on its device, or as a numpy array."""
    if not hasattr(given, "detach"):
        return as_numpy(found)
    import torch

    return torch.as_tensor(found, device=given.device)


def check_count(name: str, value: Any, low: int = 1) -> int:
    """Give ``value`` as an int of at least ``low``, or raise an InputError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}.")
    return int(value)


def check_number(name: str, value: Any, limit: float = math.inf, limit_said: str = "") -> float:
    """Give ``value`` as a float above 0 that is at most ``limit``, or raise an InputError."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 < value <= limit:
        raise InputError(f"{name} must be a number above 0{limit_said}, got {value!r}.")
    return float(value)


def whole_numbers(name: str, given: Any, n: int | None = None, low: int | None = NO_CLUSTER) -> IntArray:
    """Give ``given`` as int64 (n,) of at least ``low``, or raise an InputError that names it.

    None for ``n``: any number of them; for ``low``: any whole numbers.
    """
    array = as_numpy(given)
    if array.ndim != 1 or len(array) != (len(array) if n is None else n):
        wanted = "(n,)" if n is None else f"({n},), as many as images"
        raise InputError(f"{name} must have shape {wanted}, got {array.shape}.")
    if not len(array):
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        way = f" numpy.unique({name}, return_inverse=True)[1] numbers it." if array.dtype.kind in "US" else ""
        kind = "text" if way else f"dtype {array.dtype}"
        raise InputError(f"{name} must be whole numbers, got {kind}.{way}")
    if low is not None and int(array.min()) < low:
        raise InputError(f"{name} must be at least {low}, got {int(array.min())}.")
    if int(array.max()) > np.iinfo(np.int64).max:
        raise InputError(f"{name} must be below 2**63, got {int(array.max())}.")
    return np.asarray(array, dtype=np.int64)


def image_numbers(name: str, given: Any, n: int) -> IntArray:
    """Give ``given`` as numbers of n images, int64 (m,), 0 to n - 1, or raise an InputError that names it."""
    numbers = whole_numbers(name, given, low=0)
    if len(numbers) and int(numbers.max()) >= n:
        raise InputError(f"{name} must be images, 0 to {n - 1}, got {int(numbers.max())}.")
    return numbers


def texts(name: str, array: Any) -> Any:
    """Give an array of strings as such; bytes are UTF-8, as names of files are.

    InputError for another, and for characters that no file can hold.
    """
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "surrogateescape")
    if array.dtype.kind != "U":
        raise InputError(f"{name} must be strings, got dtype {array.dtype}.")
    try:
        "".join(array.ravel().tolist()).encode("utf-8", "surrogateescape")
    except (ValueError, SystemError) as error:  # half a surrogate pair, or a number that is no character
        raise InputError(f"{name} must be strings that can be written: {reason(error)}.") from None
    return array


def check_distinct(name: str, values: Iterable[str]) -> None:
    """Raise an InputError that names a value which is there more than once."""
    for value, count in Counter(values).most_common(1):
        if count > 1:
            raise InputError(f"{name} names {value!r} {count} times. Leave one row for each image.")


def neighbour_arrays(neighbours: Neighbours) -> tuple[Any, Any]:
    """Give indices (n, k) and cosine distances (n, k) as numpy arrays, or raise an InputError."""
    indices, distances = (as_numpy(part) for part in (neighbours.indices, neighbours.distances))
    if indices.ndim != 2 or indices.shape != distances.shape or 0 in indices.shape:
        raise InputError(
            "neighbours must hold indices and distances of one shape (n, k), "
            f"got {indices.shape} and {distances.shape}."
        )
    if neighbours.cosine is False:
        raise InputError('neighbours must be those by cosine: knn(features, k, metric="cosine").')
    if not 0 <= int(indices.min()) <= int(indices.max()) < len(indices):
        raise InputError(
            f"neighbours must have indices from 0 to {len(indices) - 1}, "
            f"got {indices.min()} to {indices.max()}."
        )
    if not np.isfinite(distances).all():
        raise InputError("neighbours must hold finite distances, got NaN or infinity.")
    return indices, distances
