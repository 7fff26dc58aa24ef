"""The k-reciprocal Jaccard similarity, sparse from end to end.

Source: Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017
(arXiv 1701.08398).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
from pydantic import Field, model_validator

from icsr_cli import choices
from icsr_cli.checks import as_numpy, check_count
from icsr_cli.distances.features import Index, check_features, is_tensor, unit_rows
from icsr_cli.distances.neighbours import knn
from icsr_cli.errors import InputError
from icsr_cli.threads import in_threads, row_ranges, thread_count
from icsr_cli.types import ALONE, Evidence, Neighbours, Team

if TYPE_CHECKING:
    from icsr_cli.kreciprocal import Rows


class Options(choices.Options):
    """Neighbours in the reciprocal sets, and those whose sets are averaged."""

    k1: int = Field(30, ge=1)
    k2: int = Field(6, ge=1)

    @model_validator(mode="after")
    def _order(self) -> Options:
        if self.k2 > self.k1:
            raise ValueError(f"k2 must be at most k1; got k2 = {self.k2} and k1 = {self.k1}")
        return self

    @property
    def neighbours(self) -> int:
        """As many as the reciprocal sets take."""
        return self.k1


def similarity(evidence: Evidence, options: Options) -> sp.csr_array:
    """Give 1 - the k-reciprocal Jaccard distance, sparse (n, n)."""
    near = evidence.neighbours(options.k1)
    return jaccard_similarity(
        evidence.features, options.k1, options.k2, neighbours=near, least=evidence.least, team=evidence.team
    )


Backend = Literal["auto", "numba", "torch"]
#: The next so many rows above the diagonal: entries per row, columns in any order, values.
Part: TypeAlias = tuple[int, tuple[Any, Any, Any]]


def jaccard_similarity(
    features: Any,
    k1: int = 30,
    k2: int = 6,
    *,
    device: Any = None,
    neighbours: Neighbours | None = None,
    backend: Backend = "auto",
    approximate: Index | None = None,
    least: float = 0.0,
    team: Team = ALONE,
) -> sp.csr_array:
    """Give 1 - the k-reciprocal Jaccard distance of all pairs that share anything.

    Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017
    (arXiv 1701.08398), eq. 2 to 11, among one set of images and without the final mix with the
    original distance:

    1. R(i, k) holds the j among the k nearest of i that have i among their own k nearest.
    2. R(i, k1) grows by R(c, h), h = round-half-even(k1 / 2) + 1, for each c in it of which more
       than 2/3 of R(c, h) lies in R(i, k1).
    3. V(i) is softmax(-|x_i - x_j|^2) over the j in that set, and 0 elsewhere.
    4. V(i) becomes the mean of V over the first k2 neighbours of i.
    5. With s = sum_j min(V(i)_j, V(l)_j), the similarity of i and l is s / (2 - s).

    Args:
        features: (n, d) numbers, numpy or torch; divided by their lengths where these are not 1.
        k1: neighbours in the reciprocal sets; all n where there are fewer than k1.
        k2: neighbours whose V are averaged, 1 to k1.
        device: where to compute; default: where the features are.
        backend: ``"numba"``, compiled, on the CPU; ``"torch"``, on the device of the search; ``"auto"``
            takes numba on the CPU and torch elsewhere. They agree to 1e-6.
        neighbours: the result of ``knn`` on the same features with at least k1 columns, where the
            caller has it already; of metric ``"cosine"``, its distances are not taken again.
        approximate: how the neighbours are searched; see ``knn``.
        least: pairs of a smaller similarity are not stored, 0 to 1. Memory goes with the stored pairs.
        team: processes that compute it together, each from the same arguments. The result, that of one
            process to the bit, is the leader's; the others get an array without entries.

    Returns:
        float32 (n, n) array, symmetric to the bit, values in (0, 1], the diagonal 1, columns sorted.
        Pairs that are not stored share nothing: similarity 0, distance 1; or they are below ``least``.

    Raises:
        InputError: what came is not as said above.
    """
    vectors = unit_rows(check_features(features, device))
    n = len(vectors)
    if backend not in ("auto", "numba", "torch"):
        raise InputError(f"backend must be 'auto', 'numba' or 'torch', got {backend!r}.")
    k1, k2 = check_count("k1", k1, 1), check_count("k2", k2, 1)
    if not 0 <= least <= 1:
        raise InputError(f"least must be 0 to 1, got {least!r}.")
    if k2 > k1:
        raise InputError(f"k2 must be at most k1, got k2 = {k2} and k1 = {k1}.")
    if neighbours is None:
        neighbours = knn(
            vectors, min(k1, n), metric="cosine", device=device, approximate=approximate, team=team
        )
    ranks = _ranks(n, min(k1, n), neighbours)
    half = min(round(k1 / 2) + 1, ranks.shape[1])
    if backend == "torch" or (backend == "auto" and is_tensor(vectors)):
        from icsr_cli.distances.jaccard_torch import overlaps_above

        parts = list(overlaps_above(vectors, ranks, half, k2, team.share, least))
        return mirrored(n, [part for own in team.to_leader(parts) for part in own])
    squared = 2 * as_numpy(neighbours.distances) if neighbours.cosine else None
    return mirrored(n, overlaps(_weights(as_numpy(vectors), ranks, squared, half, k2, team), least, team))


def _ranks(n: int, k1: int, neighbours: Neighbours) -> Any:
    indices = neighbours.indices
    if len(indices) != n or indices.shape[1] < k1:
        raise InputError(
            f"neighbours must have {n} rows and at least {k1} columns, got {tuple(indices.shape)}."
        )
    indices = as_numpy(indices)
    low, high = int(indices.min()), int(indices.max())
    if not 0 <= low <= high < n:
        raise InputError(
            f"neighbours must have indices from 0 to {n - 1}, got {low} to {high}: of other features?"
        )
    return np.ascontiguousarray(indices[:, :k1], dtype=np.int32)


def _weights(x: Any, ranks: Any, squared: Any, half: int, k2: int, team: Team) -> Rows:
    from icsr_cli.kreciprocal import expanded, reciprocal_sets

    share = team.share(len(ranks))
    known = None if squared is None else (ranks, squared)
    rows = joined(weighted(x, *reciprocal_sets(ranks, half, share), known, first=share[0]), team)
    nearest = ranks[:, :k2]
    return rows if nearest.shape[1] == 1 else joined(expanded(nearest, rows, share), team)


def joined(rows: Rows, team: Team) -> Rows:
    """Give the rows of all processes, one's after another's."""
    from icsr_cli.kreciprocal import stacked

    starts, columns, values = rows
    return rows if team.size == 1 else stacked(team.join((np.diff(starts), columns, values)))


def weighted(
    x: Any, starts: Any, members: Any, known: tuple[Any, Any] | None = None, *, first: int = 0
) -> Rows:
    """Give V of sets (starts int64 (m + 1,), members int32): a softmax over each (equation 7).

    They are the sets of the images from ``first`` on. ``known``: for all images, those whose squared
    distances are known, (n, k), and these distances; others are computed.
    """
    from icsr_cli.distances import jaccard_kernels as kernels

    ranks, squared = known or (np.empty((len(x), 0), dtype=np.int32), np.empty((len(x), 0), dtype=np.float32))
    weights = np.empty(members.size, dtype=np.float32)
    in_threads(
        lambda low, high: kernels.softmax(x, first, starts, members, ranks, squared, weights, low, high),
        row_ranges(len(starts) - 1),
    )
    return starts, members, weights


def overlaps(rows: Rows, least: float, team: Team = ALONE) -> list[Part]:
    """Give similarities from ``least`` on, above the diagonal; of several processes to the leader alone."""
    from icsr_cli.kreciprocal import inverted, overlap

    by_column = inverted(rows)
    first, end = _even_share(rows, by_column, team)
    ranges = list(row_ranges(end, first=first))
    parts = in_threads(lambda low, high: overlap(rows, by_column, low, high, least), ranges)
    own = [(high - low, part) for (low, high), part in zip(ranges, parts, strict=True)]
    return [part for found in team.to_leader(own) for part in found]


def _even_share(rows: Rows, by_column: Any, team: Team) -> tuple[int, int]:
    """Cut the rows so that each process adds up as much: the last rows have few that come after them."""
    starts, columns, _ = rows
    if team.size == 1:
        return 0, len(starts) - 1
    heads, _, _, places = by_column
    return _even_shares(_ends(heads[columns + 1] - places)[starts], team.size)[team.rank]


def _ends(sizes: Any) -> Any:
    """Give where things of these sizes, (m,), end that lie one behind another, after a 0: int64 (m + 1,)."""
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))


def _even_shares(ends: Any, shares: int) -> list[tuple[int, int]]:
    """Cut things that end there into stretches, first and end, that are about as long."""
    edges = np.searchsorted(ends, ends[-1] * np.arange(shares + 1) / shares)
    edges[0], edges[-1] = 0, len(ends) - 1
    return [(int(low), int(high)) for low, high in pairwise(edges)]


def mirrored(n: int, parts: list[Part]) -> sp.csr_array:
    """Put the parts, which are emptied on the way, and their mirrors into one array."""
    from icsr_cli.distances import jaccard_kernels as kernels

    if not parts:  # another process has them
        empty = np.empty(0, dtype=np.int32)
        starts = np.zeros(n + 1, dtype=np.int32)
        return sp.csr_array((empty.astype(np.float32), empty, starts), shape=(n, n))
    above = np.concatenate([counts for _, (counts, _, _) in parts])
    shares = _even_shares(_ends([len(found) for _, (_, found, _) in parts]), thread_count())
    firsts = _ends([size for size, _ in parts])[[low for low, _ in shares]]
    groups = [parts[low:high] for low, high in shares]
    parts.clear()
    named = in_threads(lambda share, _: _named(n, groups[share]), row_ranges(len(groups)))
    below = np.sum(named, axis=0)
    starts = _ends(below + 1 + above)
    diagonal = starts[:-1] + below
    columns = np.empty(starts[-1], dtype=np.int32)
    values = np.empty(starts[-1], dtype=np.float32)
    columns[diagonal], values[diagonal] = np.arange(n), 1

    def fill_below(share: int, filled: Any) -> None:
        row, group = firsts[share], groups[share]
        while group:
            size, entries = group.pop(0)
            kernels.fill_below(*entries, row, filled, columns, values)
            row += size

    def fill_above(share: int, filled: Any) -> None:
        low, high = rows[share]
        kernels.fill_above(starts, diagonal, low, high, filled, columns, values)

    _one_behind_another(starts[:-1], named, fill_below)
    rows = _even_shares(_ends(below), thread_count())
    named = in_threads(lambda low, high: kernels.count(starts, diagonal, columns, low, high), rows)
    _one_behind_another(diagonal + 1, named, fill_above)
    index_type = np.int32 if starts[-1] < 2**31 else np.int64
    indices = columns.astype(index_type, copy=False)
    return sp.csr_array((values, indices, starts.astype(index_type)), shape=(n, n))


def _named(n: int, parts: list[Part]) -> Any:
    """Count how often each image is a column of the parts: int64 (n,)."""
    counts = np.zeros(n, dtype=np.int64)
    for _, (_, found, _) in parts:
        counts += np.bincount(found, minlength=n)
    return counts


def _one_behind_another(places: Any, sizes: list[Any], fill: Callable[[int, Any], None]) -> None:
    """Fill rows by threads, each from where in each row the one before ends: int64 (n,), by ``sizes``."""
    in_threads(
        lambda share, _: fill(share, places + np.sum(sizes[:share], axis=0, dtype=np.int64)),
        row_ranges(len(sizes)),
    )
