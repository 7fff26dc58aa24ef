"""Vectors as codes of 8 bits, whose products a processor with VNNI makes several times as fast as floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import torch

from icsr_cli.distances.features import squared_lengths
from icsr_cli.exact_search import (
    NEAR_TIE,
    SPARE,
    Among,
    Multiply,
    blocks,
    forbid,
    measure,
    nearest_lists,
    nearest_of,
    nobody,
    settled,
)
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import FloatArray, Team

#: Candidates for each neighbour, at most; their distances are taken exactly.
MOST = 3
#: Numbers that are encoded at a time, 16 MiB: few enough that their memory is used again.
BLOCK = 2**22
#: Numbers may be so much larger than the largest of some rows before they are cut off.
HEADROOM = 1.1
#: Vectors that tell beforehand whether codes will do, the share of them for which they must, and how many
#: candidates are taken for each that those need.
SAMPLE, ENOUGH, ROOM = 64, 0.95, 1.25
#: What turning in float32 may move a vector, as a share of its length; and what sums of whole numbers, which
#: are exact below 2**24, may be off, as a share of the largest.
_ROUNDING, _SUMS = 1e-5, 1e-6


@dataclass(frozen=True)
class Codes:
    """Whole numbers for n vectors, and how far they are off.

    ``values`` int8 (n, width or a few more, which are 0); ``squares`` float32 (n,), of the values; ``step``
    the length of 1; ``errors`` float32 (n,), at most so far is a vector from its values, in steps.
    """

    values: torch.Tensor
    squares: FloatArray
    step: float
    errors: FloatArray

    def multiplier(self) -> Multiply:
        """Give what writes products as int32; torch then has one thread in each thread of the search."""

        def multiply(top: slice, left: slice, products: Any) -> None:
            if torch.get_num_threads() > 1:
                torch.set_num_threads(1)
            torch._int_mm(self.values[top], self.values[left].T, out=torch.from_numpy(products))

        return multiply

    def nearest(self, wanted: Sequence[Among], groups: Any, team: Team) -> list[Any]:
        """Give keys of the nearest of each vector, itself first, as ``nearest_lists`` does."""
        threads = torch.get_num_threads()
        try:
            return nearest_lists(self.squares, wanted, groups, self.multiplier(), np.int32, team)
        finally:
            torch.set_num_threads(threads)

    def squared_distances(self, rows: Any) -> torch.Tensor:
        """Give squared distances of some vectors to all, in squared steps: float32 (m, n)."""
        products = torch._int_mm(self.values[rows], self.values.T)
        squares = torch.from_numpy(self.squares)
        return squares[rows, None] + squares - 2 * products

    def no_nearer(self, squared: Any, rows: Any) -> Any:
        """Give what vectors are at least off, squared, whose codes are ``squared`` (m, width) off or more."""
        certain = np.maximum(squared - _SUMS * self.squares.max(), 0)
        gap = np.sqrt(certain) - self.errors[rows, None] - self.errors.max()
        return np.square(np.maximum(gap, 0) * self.step)


def encode(n: int, width: int, part: Callable[[slice], FloatArray]) -> Codes:
    """Round n vectors, of which ``part`` gives some as float32 (m, width), to steps of one length.

    They are turned before, all alike, so that every number of a vector is about as large: signs at random,
    then a cosine transform (Ailon and Chazelle, STOC 2006, with another transform).
    """
    signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.float32), width)

    def turned(own: slice) -> FloatArray:
        result: FloatArray = scipy.fft.dct(part(own) * signs, norm="ortho", overwrite_x=True)
        return result

    rows = max(1, BLOCK // width)
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
        errors[own] = np.sqrt(squared_lengths(steps - rounded)) + _ROUNDING * np.sqrt(squared_lengths(steps))

    in_threads(round_off, row_ranges(n, -(-n // rows)))
    return Codes(torch.from_numpy(values), squares, step, errors)


def largest_code() -> int:
    """Give 127; 63 where the processor adds two products in 16 bits, too few for larger ones."""
    codes = torch.full((32, 64), 127, dtype=torch.int8)
    return 127 if int(torch._int_mm(codes, codes.T).min()) == 64 * 127**2 else 63


def are_fast() -> bool:
    """Tell whether this processor multiplies codes faster than floats, and without running over."""
    return torch.cpu._is_vnni_supported() and largest_code() == 127


def search_codes(
    x: FloatArray, wanted: Sequence[Among], groups: Any, team: Team
) -> list[tuple[Any, Any]] | None:
    """Search all pairs as ``search_cpu`` does; None where codes would prove too little.

    What is not among the candidates of a vector is farther by its codes, so by the triangle inequality at
    least ``no_nearer`` away. Vectors whose k-th candidate is not nearer than that are compared with all.
    """
    tolerance, centre = NEAR_TIE * float(squared_lengths(x).max()), x.mean(axis=0)
    codes = encode(len(x), x.shape[1], lambda block: x[block] - centre)

    def no_nearer(squared: Any, rows: Any) -> Any:
        return codes.no_nearer(squared, rows) - np.float32(tolerance)

    kept, *_ = team.join([_enough(x, among, groups, no_nearer, codes) for among in wanted])
    if not all(kept):
        return None
    candidates = [among._replace(k=k) for among, k in zip(wanted, kept, strict=True)]
    lists = codes.nearest(candidates, groups, team)
    for among, keys in zip(wanted, lists, strict=True):
        unproven = measure(x, keys, among.k, np.arange(*team.share(len(x))), no_nearer)
        more = among._replace(k=among.k + SPARE)
        keys[unproven] = nobody(len(x))
        keys[unproven, : more.k] = nearest_of(x, unproven, more, groups)
        measure(x, keys, among.k, unproven)
    return [settled(x, keys, among.k, tolerance, team) for keys, among in zip(lists, wanted, strict=True)]


def _enough(x: FloatArray, among: Among, groups: Any, no_nearer: Any, codes: Codes) -> int:
    """Give how many candidates prove the neighbours of nearly all of a sample; 0 where too many would."""
    n = len(x)
    sample = np.arange(0, n, max(1, n // SAMPLE))
    squares, needed = squared_lengths(x), []
    for block in blocks(len(sample), n):
        own = sample[block]
        itself = np.arange(len(own)), own
        exact = squares[own, None] + squares - 2 * x[own] @ x.T
        nearest = no_nearer(codes.squared_distances(own).numpy(), own)
        for distances in exact, nearest:
            forbid(distances, own, among.relation, groups)
            distances[itself] = -1
        limits = np.partition(exact, among.k - 1)[:, among.k - 1, None]
        needed.append((nearest < limits).sum(axis=1))
    most = float(np.quantile(np.concatenate(needed), ENOUGH))
    return min(n, max(among.k + SPARE, math.ceil(ROOM * most))) if most <= MOST * among.k + SPARE else 0
