"""Exact search by what stands for vectors roughly: it gives candidates, and proves that nobody is missing."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icsr_cli.distances.features import squared_lengths
from icsr_cli.exact_search import (
    BLOCK,
    NEAR_TIE,
    SPARE,
    Among,
    forbid,
    measure,
    nearest_lists,
    nearest_of,
    nobody,
    settled,
)
from icsr_cli.threads import blocks
from icsr_cli.types import FloatArray, Team

#: Candidates for each neighbour, at most; their distances are taken exactly.
MOST = 3
#: Vectors that tell beforehand whether so many will do, the share of them for which they must, and how many
#: candidates are taken for each that those need.
SAMPLE, ENOUGH, ROOM = 64, 0.95, 1.25
#: Numbers of vectors that are made rough at a time, 16 MiB: few enough that their memory is used again.
CHUNK = 2**22
#: What products in float32 may move a vector, as a share of its length.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Rough:
    """Numbers that stand for n vectors, and how far they are off.

    ``values`` (n, width), float32 or whole numbers in int8; ``squares`` float32 (n,), of the values;
    ``errors`` float32 (n,). In steps of the length ``step``, two vectors are no nearer to each other than
    their values, less the errors of both.
    """

    values: Any
    squares: FloatArray
    step: float
    errors: FloatArray

    def nearest(self, wanted: Sequence[Among], groups: Any, team: Team) -> list[Any]:
        """Give keys of the nearest of each vector, itself first, as ``nearest_lists`` does."""
        if self.values.dtype != np.int8:
            return nearest_lists(self.squares, wanted, groups, self._multiply, np.float32, team)
        return nearest_lists(self.squares, wanted, groups, self._multiply_codes, np.int32, team)

    def _multiply(self, top: slice, left: slice, room: Any) -> Any:
        return np.matmul(self.values[top], self.values[left].T, out=room)

    def _multiply_codes(self, top: slice, left: slice, room: Any) -> Any:
        import torch

        top_codes, left_codes = (torch.from_numpy(self.values[rows]) for rows in (top, left))
        torch._int_mm(top_codes, left_codes.T, out=torch.from_numpy(room))
        return room

    def squared_distances(self, rows: Any) -> FloatArray:
        """Give squared distances of the values of some to all, in squared steps: float32 (m, n)."""
        own, others = self.values[rows], self.values
        if others.dtype == np.int8:
            import torch

            products = torch._int_mm(torch.from_numpy(own), torch.from_numpy(others).T).float().numpy()
        else:
            products = own @ others.T
        found: FloatArray = self.squares[rows, None] + self.squares - 2 * products
        return found

    def no_nearer(self, squared: Any, rows: Any) -> Any:
        """Give what vectors are at least off, squared, whose values are ``squared`` (m, width) or more."""
        certain = np.maximum(squared - np.float32(NEAR_TIE) * self.squares.max(), 0)
        gap = np.sqrt(certain) - self.errors[rows, None] - self.errors.max()
        return np.square(np.maximum(gap, 0) * np.float32(self.step))


def search_roughly(
    x: FloatArray, choices: Iterable[Rough], wanted: Sequence[Among], groups: Any, team: Team
) -> list[tuple[Any, Any]] | None:
    """Search all pairs as ``search_cpu`` does, by the first of ``choices`` that proves enough; None if none.

    What is not among the candidates of a vector is farther by its values, so by the triangle inequality at
    least ``no_nearer`` away. Vectors whose k-th candidate is not nearer than that are compared with all.
    """
    tolerance = np.float32(NEAR_TIE) * squared_lengths(x).max()
    sample = np.arange(0, len(x), max(1, len(x) // SAMPLE))
    limits = [_limits(x, sample, among, groups) for among in wanted]
    for rough in choices:
        enough = [
            _enough(rough, tolerance, among, groups, sample, limit)
            for among, limit in zip(wanted, limits, strict=True)
        ]
        kept, *_ = team.join(enough)
        if all(kept):
            break
    else:
        return None

    def no_nearer(squared: Any, rows: Any) -> Any:
        return rough.no_nearer(squared, rows) - tolerance

    candidates = [among._replace(k=k) for among, k in zip(wanted, kept, strict=True)]
    lists = rough.nearest(candidates, groups, team)
    for among, keys in zip(wanted, lists, strict=True):
        unproven = measure(x, keys, among.k, np.arange(*team.share(len(x))), no_nearer)
        more = among._replace(k=among.k + SPARE)
        keys[unproven] = nobody(len(x))
        keys[unproven, : more.k] = nearest_of(x, unproven, more, groups)
        measure(x, keys, among.k, unproven)
    return [settled(x, keys, among.k, tolerance, team) for keys, among in zip(lists, wanted, strict=True)]


def _limits(x: FloatArray, sample: Any, among: Among, groups: Any) -> Any:
    """Give the squared distance of the k-th neighbour of each vector of the sample: float32 (m, 1)."""
    squares, limits = squared_lengths(x), []
    for block in blocks(len(sample), len(x), BLOCK):
        own = sample[block]
        exact = squares[own, None] + squares - 2 * x[own] @ x.T
        _only(exact, own, among, groups)
        limits.append(np.partition(exact, among.k - 1)[:, among.k - 1, None])
    return np.concatenate(limits)


def _only(distances: Any, own: Any, among: Among, groups: Any) -> None:
    """Leave, of distances (m, n) of vectors to all, those that are searched; a vector itself comes first."""
    forbid(distances, own, among.relation, groups)
    distances[np.arange(len(own)), own] = -1


def _enough(rough: Rough, tolerance: Any, among: Among, groups: Any, sample: Any, limits: Any) -> int:
    """Give how many candidates prove the neighbours of nearly all of a sample; 0 where too many would."""
    n, needed = len(rough.squares), []
    for block in blocks(len(sample), n, BLOCK):
        own = sample[block]
        nearest = rough.no_nearer(rough.squared_distances(own), own) - tolerance
        _only(nearest, own, among, groups)
        needed.append((nearest < limits[block]).sum(axis=1))
    most = float(np.quantile(np.concatenate(needed), ENOUGH))
    return min(n, max(among.k + SPARE, math.ceil(ROOM * most))) if most <= MOST * among.k + SPARE else 0
