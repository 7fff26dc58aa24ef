"""The k-reciprocal Jaccard similarity, sparse from end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
from pydantic import Field, model_validator

from icsr_cli import choices
from icsr_cli.checks import check_count
from icsr_cli.distances.features import check_features, is_tensor, unit_rows
from icsr_cli.distances.neighbours import Index, knn
from icsr_cli.errors import InputError
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import Evidence, Neighbours

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
    return jaccard_similarity(evidence.features, options.k1, options.k2, neighbours=near)


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
        device: where the neighbours are searched; default: where the features are. Of several, which
            share the search, the first does the rest.
        backend: ``"numba"``, compiled, on the CPU; ``"torch"``, on the device of the search; ``"auto"``
            takes numba on the CPU and torch elsewhere. They agree to 1e-6.
        neighbours: the result of ``knn`` on the same features with at least k1 columns, where the
            caller has it already.
        approximate: how the neighbours are searched; see ``knn``.

    Returns:
        float32 (n, n) array, symmetric to the bit, values in (0, 1], the diagonal 1, columns sorted.
        Pairs that are not stored share nothing: similarity 0, distance 1.

    Raises:
        InputError: what came is not as said above.

    """
    first = device[0] if isinstance(device, list | tuple) else device
    vectors = unit_rows(check_features(features, first))
    n = len(vectors)
    if backend not in ("auto", "numba", "torch"):
        raise InputError(f"backend must be 'auto', 'numba' or 'torch', got {backend!r}.")
    k1, k2 = check_count("k1", k1, 1), check_count("k2", k2, 1)
    if k2 > k1:
        raise InputError(f"k2 must be at most k1, got k2 = {k2} and k1 = {k1}.")
    if neighbours is None:
        neighbours = knn(vectors, min(k1, n), device=device, approximate=approximate)
    ranks = _ranks(n, min(k1, n), neighbours)
    half = min(round(k1 / 2) + 1, ranks.shape[1])
    if backend == "torch" or (backend == "auto" and is_tensor(vectors)):
        from icsr_cli.distances.jaccard_torch import overlaps_above

        return mirrored(n, list(overlaps_above(vectors, ranks, half, k2)))
    x = vectors if isinstance(vectors, np.ndarray) else vectors.cpu().numpy()
    return mirrored(n, overlaps(_weights(x, ranks, half, k2)))


def _ranks(n: int, k1: int, neighbours: Neighbours) -> Any:
    indices = neighbours.indices
    if len(indices) != n or indices.shape[1] < k1:
        raise InputError(
            f"neighbours must have {n} rows and at least {k1} columns, got {tuple(indices.shape)}."
        )
    if is_tensor(indices):
        indices = indices.cpu().numpy()
    low, high = int(indices.min()), int(indices.max())
    if not 0 <= low <= high < n:
        raise InputError(
            f"neighbours must have indices from 0 to {n - 1}, got {low} to {high}: of other features?"
        )
    return np.ascontiguousarray(indices[:, :k1], dtype=np.int32)


def _weights(x: Any, ranks: Any, half: int, k2: int) -> Rows:
    from icsr_cli.kreciprocal import expanded, reciprocal_sets

    return expanded(ranks[:, :k2], weighted(x, *reciprocal_sets(ranks, half)))


def weighted(x: Any, starts: Any, members: Any) -> Rows:
    """Give V of sets (starts int64 (n + 1,), members int32): a softmax over each (equation 7)."""
    from icsr_cli.distances import jaccard_kernels as kernels

    weights = np.empty(members.size, dtype=np.float32)
    in_threads(
        lambda low, high: kernels.softmax(x, starts, members, weights, low, high), row_ranges(len(starts) - 1)
    )
    return starts, members, weights


def overlaps(rows: Rows) -> list[Part]:
    """Give the similarities above the diagonal."""
    from icsr_cli.kreciprocal import inverted, overlap

    by_column = inverted(rows)
    ranges = list(row_ranges(len(rows[0]) - 1))
    parts = in_threads(lambda low, high: overlap(rows, by_column, low, high), ranges)
    return [(high - low, part) for (low, high), part in zip(ranges, parts, strict=True)]


def mirrored(n: int, parts: list[Part]) -> sp.csr_array:
    """Put the parts, which are emptied on the way, and their mirrors into one array."""
    from icsr_cli.distances import jaccard_kernels as kernels

    above = np.concatenate([counts for _, (counts, _, _) in parts])
    below = np.zeros(n, dtype=np.int64)
    for _, (_, found, _) in parts:
        below += np.bincount(found, minlength=n)
    starts = np.concatenate(([0], np.cumsum(below + 1 + above)))
    columns = np.empty(starts[-1], dtype=np.int32)
    values = np.empty(starts[-1], dtype=np.float32)
    filled = starts[:-1].copy()
    low = 0
    parts.reverse()
    while parts:
        size, (counts, found, similarities) = parts.pop()
        kernels.fill_below(counts, found, similarities, low, low + size, filled, columns, values)
        low += size
    kernels.fill_above(starts, filled, columns, values)
    index_type = np.int32 if starts[-1] < 2**31 else np.int64
    indices = columns.astype(index_type, copy=False)
    return sp.csr_array((values, indices, starts.astype(index_type)), shape=(n, n))
