"""Products of features on the CPU, by numpy's library or by that of torch, oneDNN."""

from functools import cache
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from icsr_cli.exact_search import product_of_numpy
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import FloatArray

#: oneDNN's product of floats; torch compiles it in, and calls it from no function that is public.
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
#: Columns that it computes at a time, at most: few enough that they are in the cache when they are copied.
_COLUMNS = 1024
#: What OpenBLAS calls the kernels of processors without AVX-512.
_NARROW = ("Haswell", "Zen")


def multiply(a: FloatArray, b: FloatArray, room: FloatArray) -> FloatArray:
    """Give the products of the rows of a (m, d) with those of b (n, d), float32 (m, n).

    ``room`` (m, n) has them, unless they are few: oneDNN writes into memory of its own.
    """
    if not _numpy_is_slow():
        return product_of_numpy(a, b, room)
    left, right, products = map(torch.from_numpy, (a, b, room))

    def columns(low: int, high: int) -> Any:
        return _ONEDNN(left, right[low:high], None, "none", [], "")

    def write(low: int, high: int) -> None:
        products[:, low:high] = columns(low, high)

    if len(b) <= _COLUMNS:
        return np.asarray(columns(0, len(b)))
    # By our own threads: those of oneDNN wait for each other, by far too long where others compute as well.
    in_threads(write, row_ranges(len(b), -(-len(b) // _COLUMNS)), multiplies=True)
    return room


@cache
def _numpy_is_slow() -> bool:
    """Tell whether numpy's library takes a processor with AVX-512 for one without, and oneDNN is here.

    OpenBLAS 0.3.31 does not know AMD's family 26, and multiplies at half of its speed.
    """
    if _ONEDNN is None or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return any(
        "numpy" in library["filepath"] and library.get("architecture") in _NARROW
        for library in threadpool_info()
    )
