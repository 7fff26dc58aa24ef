"""Retrieval by the Market-1501 protocol: mAP, CMC, mINP.

Only the positions of the right answers matter, so nothing is sorted: the rank of a match is one more than
the number of gallery images before it. Queries are taken in blocks; no q x g array exists.

For each query:

* gallery images of the same identity *and* camera are dropped: they are no answer, neither right nor wrong;
* gallery images of ``UNKNOWN_IDENTITY`` (-1, the data set's junk) are dropped for every query;
* gallery images of an identity that no query has (distractors) stay, as wrong answers;
* queries without a match left, and queries of ``UNKNOWN_IDENTITY``, are left out of every mean;
* of two gallery images at the same distance, the one that comes first in the gallery ranks first; of exact
  copies any may, where distances are made from features: products of equal numbers are rounded by place.

Sources: mAP and protocol, Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015;
mINP, Ye et al., "Deep Learning for Person Re-identification", TPAMI 2021, equation 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from icsr_cli.checks import check_count, whole_numbers
from icsr_cli.errors import InputError
from icsr_cli.metrics.inputs import feature_matrices
from icsr_cli.metrics.match_ranks import match_ranks
from icsr_cli.metrics.products import multiply
from icsr_cli.types import UNKNOWN_IDENTITY, DoubleArray, IntArray

#: Rows first..last of the distance matrix, as a tensor that the caller may write into.
DistanceBlock: TypeAlias = Callable[[int, int], torch.Tensor]

# Numbers in one block of distances: enough rows for a fast product, few enough to stay near the core.
BLOCK_NUMBERS: Final = {"cpu": 1 << 23, "gpu": 1 << 26}


@dataclass(frozen=True)
class Ranking:
    """How well queries find their identity. Shares are between 0 and 1, higher is better.

    ``mAP``: mean average precision, where average precision is the mean of the precision at each hit.
    ``cmc`` float64 (max_rank,): share of queries whose first match is at rank 1, 2, ... or before.
    ``mINP``: mean over queries of (number of matches) / (rank of the last match).
    ``n_queries``: queries the means are over; ``n_left_out``: those without a match in the gallery.
    ``average_precision`` float64 (q,): per query, NaN where it is left out.
    ``first_match`` int64 (q,): rank of the first match, from 1; 0 where the query is left out.
    """

    mAP: float  # noqa: N815 - the field's own name
    cmc: DoubleArray
    mINP: float  # noqa: N815 - the field's own name
    n_queries: int
    n_left_out: int
    average_precision: DoubleArray
    first_match: IntArray

    def rank(self, k: int) -> float:
        """Share of queries with a match among their first ``k`` answers; needs k <= len(cmc)."""
        if not 1 <= k <= len(self.cmc):
            raise InputError(
                f"rank {k} was asked for, but the curve holds ranks 1 to {len(self.cmc)}. "
                "Ask for one of these, or rank with a higher max_rank."
            )
        return float(self.cmc[k - 1])

    def as_dict(self) -> dict[str, float | int]:
        """Give the summary for JSON: mAP, mINP, rank_1, rank_5, rank_10 (as far as computed), counts."""
        ranks = {f"rank_{k}": self.rank(k) for k in (1, 5, 10) if k <= len(self.cmc)}
        counts = {"queries": self.n_queries, "queries_left_out": self.n_left_out}
        return {"mAP": self.mAP, **ranks, "mINP": self.mINP, **counts}


@dataclass(frozen=True)
class _Names:
    """Identity and camera of every query and gallery image, and the gallery in order of identity."""

    query_ids: IntArray
    gallery_ids: IntArray
    query_cameras: IntArray
    gallery_cameras: IntArray

    def pair(self, queries: npt.NDArray[np.intp] | slice, gallery: npt.NDArray[np.intp]) -> _Names:
        return _Names(
            self.query_ids[queries],
            self.gallery_ids[gallery],
            self.query_cameras[queries],
            self.gallery_cameras[gallery],
        )


def rank(
    query: Any,
    gallery: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any,
    gallery_cameras: Any,
    *,
    max_rank: int = 50,
    device: torch.device | str | None = None,
) -> Ranking:
    """Rank the gallery for each query by squared L2 between features, and score it.

    ``query`` (q, d) and ``gallery`` (g, d): float features, numpy or torch, of unit length by convention.
    ``*_ids`` and ``*_cameras``: whole numbers, one per image. The module's text states the protocol.
    ``device``: where to compute; tensors stay where they are, numpy goes to the GPU if there is one.

    Raises InputError for shapes that do not fit, features that are not finite, or when no query has a match.
    """
    names = _check_names(query_ids, gallery_ids, query_cameras, gallery_cameras, max_rank=max_rank)
    queries, candidates = _check_features(query, gallery, names, device)
    return _rank_features(queries, candidates, names, max_rank)


def rank_distances(
    distances: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any,
    gallery_cameras: Any,
    *,
    max_rank: int = 50,
) -> Ranking:
    """Score a (q, g) matrix of distances (numpy or torch, smaller is nearer) as :func:`rank` does.

    Raises InputError for shapes that do not fit, distances that are not finite, or no query with a match.
    """
    names = _check_names(query_ids, gallery_ids, query_cameras, gallery_cameras, max_rank=max_rank)
    _check_distances(distances, names)
    return _rank_matrix(distances, names, max_rank)


def rank_by_camera(
    query: Any, gallery: Any, *truth: Any, max_rank: int = 50, device: torch.device | str | None = None
) -> dict[tuple[int, int], Ranking]:
    """Rank as :func:`rank` does, for each pair (query camera, gallery camera) on its own.

    ``truth``: identities of queries and gallery, then their cameras, as :func:`rank` takes them.
    A pair ranks the gallery images of that camera alone for the queries of that camera. Pairs without a
    single match, a camera with itself among them, are absent. Keys are in rising order.
    """
    names = _check_names(*truth, max_rank=max_rank)
    queries, candidates = _check_features(query, gallery, names, device)
    results = {}
    for cameras, rows, columns in _camera_pairs(names):
        part = names.pair(rows, columns)
        on_device = [torch.as_tensor(index, device=queries.device) for index in (rows, columns)]
        results[cameras] = _rank_features(queries[on_device[0]], candidates[on_device[1]], part, max_rank)
    return results


def rank_distances_by_camera(
    distances: Any, *truth: Any, max_rank: int = 50
) -> dict[tuple[int, int], Ranking]:
    """Score a (q, g) matrix of distances, re-ranked ones for instance, as :func:`rank_by_camera` does."""
    names = _check_names(*truth, max_rank=max_rank)
    _check_distances(distances, names)
    return {
        cameras: _rank_matrix(distances[rows][:, columns], names.pair(rows, columns), max_rank)
        for cameras, rows, columns in _camera_pairs(names)
    }


def _check_names(
    query_ids: Any, gallery_ids: Any, query_cameras: Any, gallery_cameras: Any, *, max_rank: int
) -> _Names:
    check_count("max_rank", max_rank)
    queries = whole_numbers("query_ids", query_ids, low=None)
    gallery = whole_numbers("gallery_ids", gallery_ids, low=None)
    return _Names(
        queries,
        gallery,
        whole_numbers("query_cameras", query_cameras, len(queries), low=None),
        whole_numbers("gallery_cameras", gallery_cameras, len(gallery), low=None),
    )


def _check_features(
    query: Any, gallery: Any, names: _Names, device: torch.device | str | None
) -> tuple[torch.Tensor, torch.Tensor]:
    queries, candidates = feature_matrices(query, gallery, device)
    both = (("query", queries, names.query_ids), ("gallery", candidates, names.gallery_ids))
    for name, matrix, ids in both:
        if len(matrix) != len(ids):
            raise InputError(
                f"{name} has {len(matrix)} features and {name}_ids {len(ids)} entries; expected as many. "
                "Pass one identity per feature, in the same order."
            )
    return queries, candidates


def _check_distances(distances: Any, names: _Names) -> None:
    expected = (len(names.query_ids), len(names.gallery_ids))
    shape = tuple(getattr(distances, "shape", ()))
    if shape != expected:
        raise InputError(
            f"distances has shape {shape}; expected {expected}, one row per query and one column per "
            "gallery image. Pass a numpy array or a tensor of that shape."
        )


def _rank_features(query: torch.Tensor, gallery: torch.Tensor, names: _Names, max_rank: int) -> Ranking:
    known = np.flatnonzero(names.gallery_ids != UNKNOWN_IDENTITY)
    if len(known) < len(gallery):
        gallery = gallery[torch.as_tensor(known, device=gallery.device)]
        names = names.pair(slice(None), known)
    lengths = gallery.square().sum(1)

    step = min(len(query), _block_rows(gallery.device, len(gallery)))
    space = torch.empty((step, len(gallery)), device=gallery.device)

    def block(first: int, last: int) -> torch.Tensor:
        # The query's own length is the same for its whole row: it changes no rank.
        out = space[: last - first]
        if gallery.device.type != "cpu":
            return torch.addmm(lengths, query[first:last], gallery.T, alpha=-2, out=out)
        products = multiply(-2 * query[first:last].numpy(), gallery.numpy(), out.numpy())
        return torch.from_numpy(products).add_(lengths)

    return _rank_blocks(block, names, max_rank, gallery.device)


def _rank_matrix(distances: Any, names: _Names, max_rank: int) -> Ranking:
    known = np.flatnonzero(names.gallery_ids != UNKNOWN_IDENTITY)
    every = len(known) == len(names.gallery_ids)

    def block(first: int, last: int) -> torch.Tensor:
        rows = distances[first:last] if every else distances[first:last][:, known]
        # Always a copy: the ranking writes into its blocks, and the caller's matrix stays as it is.
        part = rows.detach().clone() if isinstance(rows, torch.Tensor) else torch.tensor(np.asarray(rows))
        part = part if part.dtype in (torch.float32, torch.float64) else part.to(torch.float64)
        if not bool(torch.isfinite(part).all()):
            raise InputError(
                f"distances of queries {first} to {last - 1} hold numbers that are not finite (NaN or "
                "infinity); expected finite distances. Look for a diverged model."
            )
        return part

    device = distances.device if isinstance(distances, torch.Tensor) else torch.device("cpu")
    return _rank_blocks(block, names.pair(slice(None), known), max_rank, device)


def _camera_pairs(
    names: _Names,
) -> Iterator[tuple[tuple[int, int], npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Give each pair of cameras in which a query has a match, its query rows and its gallery columns."""
    for query_camera in np.unique(names.query_cameras):
        rows = np.flatnonzero(names.query_cameras == query_camera)
        wanted = np.setdiff1d(names.query_ids[rows], [UNKNOWN_IDENTITY])
        for gallery_camera in np.unique(names.gallery_cameras):
            columns = np.flatnonzero(names.gallery_cameras == gallery_camera)
            found = np.isin(names.gallery_ids[columns], wanted).any()
            if query_camera != gallery_camera and found:
                yield (int(query_camera), int(gallery_camera)), rows, columns


def _rank_blocks(block: DistanceBlock, names: _Names, max_rank: int, device: torch.device) -> Ranking:
    """Score block after block of queries; the gallery holds known identities only."""
    n_queries, n_gallery = len(names.query_ids), len(names.gallery_ids)
    precision = np.full(n_queries, np.nan)
    inverse_penalty = np.full(n_queries, np.nan)
    first_match = np.zeros(n_queries, dtype=np.int64)
    by_identity = np.argsort(names.gallery_ids, kind="stable")
    sorted_ids = names.gallery_ids[by_identity]
    step = _block_rows(device, n_gallery)
    for first in range(0, n_queries, step):
        last = min(first + step, n_queries)
        rows, columns = _same_identity(names.query_ids[first:last], sorted_ids, by_identity)
        same_camera = names.query_cameras[first + rows] == names.gallery_cameras[columns]
        distances = block(first, last)
        # They are no answer, neither right nor wrong: behind everything else.
        dropped = [torch.as_tensor(at[same_camera], device=distances.device) for at in (rows, columns)]
        distances[dropped[0], dropped[1]] = torch.inf
        rows, columns = rows[~same_camera], columns[~same_camera]
        ranks = match_ranks(distances, rows, columns)
        found, part = _score_queries(rows, ranks)
        precision[first + found], inverse_penalty[first + found], first_match[first + found] = part
    return _summary(precision, inverse_penalty, first_match, max_rank)


def _block_rows(device: torch.device, n_gallery: int) -> int:
    return max(1, BLOCK_NUMBERS["cpu" if device.type == "cpu" else "gpu"] // max(1, n_gallery))


def _same_identity(
    query_ids: IntArray, sorted_ids: IntArray, by_identity: npt.NDArray[np.intp]
) -> tuple[IntArray, IntArray]:
    """Give every pair (query row, gallery column) of one identity, row by row."""
    start = np.searchsorted(sorted_ids, query_ids, side="left")
    count = np.searchsorted(sorted_ids, query_ids, side="right") - start
    rows = np.repeat(np.arange(len(query_ids)), count)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    return rows, by_identity[np.repeat(start, count) + within]


def _score_queries(
    rows: IntArray, ranks: IntArray
) -> tuple[IntArray, tuple[DoubleArray, DoubleArray, IntArray]]:
    """From the ranks of all matches, per query that has one: average precision, inverse penalty, first match.

    ``rows`` is in rising order. Gives the rows of these queries, and the three arrays.
    """
    found, start, count = np.unique(rows, return_index=True, return_counts=True)
    ranks = ranks[np.lexsort((ranks, rows))]
    hits = np.arange(len(rows)) - np.repeat(start, count) + 1
    precision = np.add.reduceat(hits / ranks, start) / count
    return found, (precision, count / ranks[start + count - 1], ranks[start])


def _summary(
    precision: DoubleArray, inverse_penalty: DoubleArray, first_match: IntArray, max_rank: int
) -> Ranking:
    used = first_match > 0
    n_used = int(used.sum())
    if n_used == 0:
        raise InputError(
            f"none of the {len(used)} queries has a match: no gallery image shows the same identity under "
            "another camera. Check that identities and cameras are those of the images, and in their order."
        )
    firsts = np.bincount(np.minimum(first_match[used], max_rank + 1), minlength=max_rank + 2)
    return Ranking(
        mAP=float(precision[used].mean()),
        cmc=np.cumsum(firsts[1 : max_rank + 1]) / n_used,
        mINP=float(inverse_penalty[used].mean()),
        n_queries=n_used,
        n_left_out=len(used) - n_used,
        average_precision=precision,
        first_match=first_match,
    )
