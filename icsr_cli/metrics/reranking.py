"""Re-ranking with k-reciprocal neighbours, on sparse sets.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
arXiv 1701.08398, section 3. Queries and gallery are ranked together (n = q + g images). Beyond the result,
memory grows with n times the size of a k-reciprocal set; no n x n array exists.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from icsr_cli import exact_search
from icsr_cli.checks import check_count, in_kind
from icsr_cli.compilation import compiled
from icsr_cli.errors import InputError
from icsr_cli.kreciprocal import expanded, inverted, overlap, reciprocal_sets
from icsr_cli.metrics.inputs import feature_matrices
from icsr_cli.metrics.products import multiply
from icsr_cli.metrics.ranking import BLOCK_NUMBERS
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import ALONE, FloatArray


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
    parts = feature_matrices(query, gallery, device)
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
    return in_kind(distances, query)


def _nearest(
    features: torch.Tensor, n_queries: int, k: int
) -> tuple[npt.NDArray[np.int32], FloatArray, FloatArray]:
    """Compare each image with each other, once.

    Gives its k nearest, itself included, int32 (n, k); the largest squared distance it has, float32 (n,);
    and the squared distances from query to gallery, float32 (q, g).
    """
    kept = np.empty((n_queries, len(features) - n_queries), dtype=np.float32)
    k = min(k, len(features))
    if features.device.type == "cpu":
        return *_nearest_cpu(features.numpy(), k, kept), kept
    return *_nearest_gpu(features, k, kept), kept


def _nearest_cpu(x: FloatArray, k: int, kept: FloatArray) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Let the label engine search, and look at its tiles of products as they come."""
    n = len(x)
    # The farthest of each image in each tile: no two threads write to the same place.
    farthest = np.zeros((-(-n // exact_search.TILE), n), dtype=np.float32)

    def note(top: slice, left: slice, products: Any, squares: Any) -> None:
        across, down = farthest[left.start // exact_search.TILE], farthest[top.start // exact_search.TILE]
        _note_tile(products, squares, top.start, left.start, across, down, kept)

    [(indices, _)] = exact_search.search_cpu(
        x, [exact_search.Among(k)], np.zeros(n, dtype=np.int64), ALONE, product=multiply, see=note
    )
    return indices.astype(np.int32), farthest.max(axis=0)


@compiled(fastmath={"nnan", "nsz"})
def _note_tile(
    products: FloatArray, squares: FloatArray, top: int, left: int, across: Any, down: Any, kept: FloatArray
) -> None:  # pragma: no cover - compiled
    """Keep the distances of queries to the gallery, and the largest of each row and of each column."""
    n_queries = len(kept)
    height, width = products.shape
    two = np.float32(2)
    # Parts as long as the loop: the compiler turns it into vector instructions.
    lengths, below = squares[left : left + width], down[left : left + width]
    for i in range(height):
        own, farthest = squares[top + i], np.float32(0)
        for j in range(width):
            distance = max(own + lengths[j] - two * products[i, j], np.float32(0))
            farthest = max(farthest, distance)
            below[j] = max(below[j], distance)
        across[top + i] = max(across[top + i], farthest)
        if top + i < n_queries < left + width:
            first = max(0, n_queries - left)
            part = kept[top + i, left + first - n_queries : left + width - n_queries]
            for j in range(len(part)):
                part[j] = max(own + lengths[first + j] - two * products[i, first + j], np.float32(0))


def _nearest_gpu(
    features: torch.Tensor, k: int, kept: FloatArray
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Compare rows with all columns, in blocks: a GPU multiplies faster than it would spare the half."""
    n_images, n_queries = len(features), len(kept)
    nearest = np.empty((n_images, k), dtype=np.int32)
    farthest = np.empty(n_images, dtype=np.float32)
    lengths = features.square().sum(1)
    step = min(n_images, max(1, BLOCK_NUMBERS["gpu"] // n_images))
    space = torch.empty((step, n_images), device=features.device)
    for first in range(0, n_images, step):
        last = min(first + step, n_images)
        block = torch.addmm(lengths, features[first:last], features.T, alpha=-2, out=space[: last - first])
        block.add_(lengths[first:last, None]).clamp_(min=0)
        farthest[first:last] = block.amax(1).cpu().numpy()
        nearest[first:last] = block.topk(k, largest=False).indices.cpu().numpy()
        if first < n_queries:
            stop = min(last, n_queries)
            kept[first:stop] = block[: stop - first, n_queries:].cpu().numpy()
    return nearest, farthest


def _set_weights(features: FloatArray, farthest: FloatArray, sets: Any) -> FloatArray:
    weights = np.empty(len(sets[1]), dtype=np.float32)
    in_threads(
        lambda low, high: _weigh(features, farthest, sets, weights, low, high), row_ranges(len(farthest))
    )
    return weights


@compiled(fastmath=True)
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


@compiled()
def _original(squared: np.float32, farthest: np.float32) -> np.float32:  # pragma: no cover - compiled
    """Give the original distance: (squared L2 / largest squared L2) squared, 0 where all are equal."""
    share = squared / farthest if farthest > 0 else np.float32(0)
    return share * share


@compiled()
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
