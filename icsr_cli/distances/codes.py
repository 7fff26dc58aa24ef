"""Vectors as codes of 8 bits, whose products a processor with VNNI makes several times as fast as floats."""

from collections.abc import Callable

import numpy as np
import scipy.fft
import torch

from icsr_cli.distances.features import squared_lengths
from icsr_cli.distances.rough import CHUNK, ROUNDING, Rough
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import FloatArray

#: Numbers may be so much larger than the largest of some rows before they are cut off.
HEADROOM = 1.1


def encode(n: int, width: int, part: Callable[[slice], FloatArray]) -> Rough:
    """Round n vectors, of which ``part`` gives some as float32 (m, width), to steps of one length.

    They are turned before, all alike, so that every number of a vector is about as large: signs at random,
    then a cosine transform (Ailon and Chazelle, STOC 2006, with another transform).
    """
    signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.float32), width)

    def turned(own: slice) -> FloatArray:
        result: FloatArray = scipy.fft.dct(part(own) * signs, norm="ortho", overwrite_x=True)
        return result

    rows = max(1, CHUNK // width)
    most = largest_code()
    step = HEADROOM * float(np.abs(turned(slice(None, None, -(-n // rows)))).max()) / most or 1.0
    # Columns of zeros fill up to eight: products of codes of one column come out wrong in torch 2.14.
    values = np.zeros((n, -(-width // 8) * 8), dtype=np.int8)
    squares, errors = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)

    def round_off(low: int, high: int) -> None:
        own = slice(low, high)
        steps = turned(own) / np.float32(step)
        rounded = np.rint(steps).clip(-most, most)
        values[own, :width], squares[own] = rounded, squared_lengths(rounded)
        errors[own] = np.sqrt(squared_lengths(steps - rounded)) + ROUNDING * np.sqrt(squared_lengths(steps))

    in_threads(round_off, row_ranges(n, -(-n // rows)))
    return Rough(values, squares, step, errors)


def largest_code() -> int:
    """Give 127; 63 where the processor adds two products in 16 bits, too few for larger ones."""
    codes = torch.full((32, 64), 127, dtype=torch.int8)
    return 127 if int(torch._int_mm(codes, codes.T).min()) == 64 * 127**2 else 63


def are_fast() -> bool:
    """Tell whether this processor multiplies codes faster than floats, and without running over."""
    return torch.cpu._is_vnni_supported() and largest_code() == 127
