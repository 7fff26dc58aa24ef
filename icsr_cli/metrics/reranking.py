"""Re-ranking with k-reciprocal neighbours, on sparse sets.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
arXiv 1701.08398, section 3. Queries and gallery are ranked together (n = q + g images). Beyond the result,
memory grows with n times the size of a k-reciprocal set; no n x n array exists.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
import torch

from icsr_cli.checks import check_count
from icsr_cli.errors import InputError
from icsr_cli.kreciprocal import expanded, inverted, overlap, reciprocal_sets
from icsr_cli.metrics.inputs import compute_device, feature_matrix, same_width
from icsr_cli.metrics.ranking import BLOCK_NUMBERS
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import FloatArray

# Columns that one thread takes at a time: their nearest stay in its cache.
_PART: Final = 512


def rerank(
    query: Any,
    gallery: Any,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    device: torch.device | str | None = None,
) -> Any:
    """Give re-ranked distances, float32 (q, g), numpy or torch as ``query`` is; smaller is nearer.

    ``query`` (q, d), ``gallery`` (g, d): float features, numpy or torch, of unit length by convention.
    ``k1``: neighbours that make a k-reciprocal set; ``k2``: neighbours whose sets are averaged (local query
    expansion; 1 is none); ``lambda_value``, 0 to 1: the original distance's share of the result (equation
    12). The original distance is the square of the squared L2 distance, divided by the largest one that the
    query has to any image, which is what the published figures of the field are computed with. Where two
    images are at the same distance, the one that comes first is the nearer one (a GPU may choose otherwise).
    ``device``: where to multiply features; tensors stay where they are, numpy goes to a GPU if there is one.

    Raises InputError for features that do not fit or are not finite, and for settings out of range.
    """
    k1, k2 = check_count("k1", k1), check_count("k2", k2)
    if not 0 <= lambda_value <= 1:
        raise InputError(
            f"lambda_value is {lambda_value}; expected 0 (re-ranked distance alone) to 1 (original alone)."
        )
    where = compute_device(query, device)
    parts = feature_matrix(query, "query", where), feature_matrix(gallery, "gallery", where)
    same_width(*parts)
    n_queries = len(parts[0])
    features = torch.cat(parts)
    nearest, farthest, distances = _nearest(features, n_queries, max(k1 + 1, k2))
    sets = reciprocal_sets(nearest[:, : k1 + 1], round(k1 / 2) + 1)
    rows = expanded(nearest[:, :k2], (*sets, _set_weights(features.cpu().numpy(), farthest, sets)))
    by_column = inverted(rows)

    def blend(low: int, high: int) -> None:
        overlaps = overlap(rows, by_column, low, high)
        _blend(distances, farthest, overlaps, np.float32(lambda_value), low, high)

    in_threads(blend, row_ranges(n_queries))
    return torch.from_numpy(distances).to(query.device) if isinstance(query, torch.Tensor) else distances


def _nearest(
    features: torch.Tensor, n_queries: int, k: int
) -> tuple[npt.NDArray[np.int32], FloatArray, FloatArray]:
    """Compare each image with each other, once.

    Gives its k nearest, itself included, int32 (n, k); the largest squared distance it has, float32 (n,);
    and the squared distances from query to gallery, float32 (q, g).
    """
    n_images = len(features)
    k = min(k, n_images)
    nearest = np.empty((n_images, k), dtype=np.int32)
    farthest = np.zeros(n_images, dtype=np.float32)
    kept = np.empty((n_queries, n_images - n_queries), dtype=np.float32)
    on_cpu = features.device.type == "cpu"
    # On the CPU a pair is compared once: a block starts at its own first image, and its columns are used
    # as rows too. A GPU multiplies faster than it would take to save the half.
    nearest_distances = np.full((n_images if on_cpu else 0, k), np.inf, dtype=np.float32)
    lengths = features.square().sum(1)
    step = min(n_images, max(1, BLOCK_NUMBERS["cpu" if on_cpu else "gpu"] // n_images))
    space = torch.empty(step * n_images, device=features.device)
    for first in range(0, n_images, step):
        last, start = min(first + step, n_images), first if on_cpu else 0
        block = space[: (last - first) * (n_images - start)].view(last - first, n_images - start)
        torch.addmm(lengths[start:], features[first:last], features[start:].T, alpha=-2, out=block)
        block.add_(lengths[first:last, None]).clamp_(min=0)
        np.maximum(farthest[first:last], block.amax(1).cpu().numpy(), out=farthest[first:last])
        if on_cpu:
            np.maximum(farthest[first:], block.amax(0).numpy(), out=farthest[first:])
            _keep_nearest(block.numpy(), first, nearest, nearest_distances)
        else:
            nearest[first:last] = block.topk(k, largest=False).indices.cpu().numpy()
        if first < n_queries:
            stop = min(last, n_queries)
            kept[first:stop] = block[: stop - first, n_queries - start :].cpu().numpy()
    return nearest, farthest, kept


def _keep_nearest(
    block: FloatArray, first: int, nearest: npt.NDArray[np.int32], nearest_distances: FloatArray
) -> None:
    """Update the nearest of all images from ``first`` on, with distances of a few of these to all of them.

    Blocks come in rising order, so each image meets the others in rising order, and of two others at the
    same distance the first one stays in front.
    """
    n_rows, n_columns = block.shape
    facts = (block, first, nearest, nearest_distances)
    in_threads(lambda low, high: _keep_of_rows(facts, low, high), row_ranges(n_rows))
    edges = [*range(n_rows, n_columns, _PART), n_columns]
    in_threads(lambda low, high: _keep_of_columns(facts, low, high), pairwise(edges))


@numba.njit(cache=True, nogil=True)
def _keep_of_rows(facts: Any, low: int, high: int) -> None:  # pragma: no cover - compiled
    block, first, nearest, nearest_distances = facts
    n_columns = block.shape[1]
    for row in range(low, high):
        image = first + row
        worst = nearest_distances[image, -1]
        for column in range(n_columns):
            if block[row, column] < worst:
                worst = _insert(nearest[image], nearest_distances[image], first + column, block[row, column])


@numba.njit(cache=True, nogil=True)
def _keep_of_columns(facts: Any, low: int, high: int) -> None:  # pragma: no cover - compiled
    block, first, nearest, nearest_distances = facts
    limits = nearest_distances[first + low : first + high, -1].copy()
    for row in range(len(block)):
        distances = block[row, low:high]
        for column in range(high - low):
            if distances[column] < limits[column]:
                image = first + low + column
                limits[column] = _insert(
                    nearest[image], nearest_distances[image], first + row, distances[column]
                )


@numba.njit(cache=True, nogil=True)
def _insert(
    others: npt.NDArray[np.int32], distances: FloatArray, other: int, distance: np.float32
) -> Any:  # pragma: no cover - compiled
    """Put ``other`` in its place, behind those at the same distance; give the last distance kept."""
    place = len(others) - 1
    while place > 0 and distances[place - 1] > distance:
        distances[place] = distances[place - 1]
        others[place] = others[place - 1]
        place -= 1
    distances[place] = distance
    others[place] = other
    return distances[-1]


def _set_weights(features: FloatArray, farthest: FloatArray, sets: Any) -> FloatArray:
    weights = np.empty(len(sets[1]), dtype=np.float32)
    in_threads(
        lambda low, high: _weigh(features, farthest, sets, weights, low, high), row_ranges(len(farthest))
    )
    return weights


@numba.njit(cache=True, nogil=True, fastmath=True)
def _weigh(
    features: FloatArray, farthest: FloatArray, sets: Any, weights: FloatArray, low: int, high: int
) -> None:  # pragma: no cover - compiled
    """Write exp(-original distance) of each member, summing to 1 over a set (equation 7)."""
    starts, members = sets
    for image in range(low, high):
        total = np.float32(0)
        for place in range(starts[image], starts[image + 1]):
            squared = np.float32(0)
            for dimension in range(features.shape[1]):
                difference = features[image, dimension] - features[members[place], dimension]
                squared += difference * difference
            weights[place] = np.exp(-_original(squared, farthest[image]))
            total += weights[place]
        for place in range(starts[image], starts[image + 1]):
            weights[place] /= total


@numba.njit(cache=True)
def _original(squared: np.float32, farthest: np.float32) -> np.float32:  # pragma: no cover - compiled
    """Give the original distance: (squared L2 / largest squared L2) squared, 0 where all are equal."""
    share = squared / farthest if farthest > 0 else np.float32(0)
    return share * share


@numba.njit(cache=True, nogil=True)
def _blend(
    distances: FloatArray, farthest: FloatArray, overlaps: Any, lambda_value: np.float32, low: int, high: int
) -> None:  # pragma: no cover - compiled
    """Turn squared distances of the queries [low, high) into re-ranked ones, in place (equation 12).

    ``overlaps``: entries per query, other images in the order of all, 1 - Jaccard distance. Pairs that are
    not among them are at Jaccard distance 1.
    """
    counts, others, similarities = overlaps
    one = np.float32(1)
    n_queries = len(distances)
    entry = 0
    for query in range(low, high):
        row = distances[query]
        for image in range(len(row)):
            row[image] = (one - lambda_value) + _original(row[image], farthest[query]) * lambda_value
        for _ in range(counts[query - low]):
            if others[entry] >= n_queries:
                row[others[entry] - n_queries] -= similarities[entry] * (one - lambda_value)
            entry += 1
