"""Exact k nearest neighbours."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from icsr_cli.distances.features import check_count, check_features, in_threads, row_ranges, unit_rows
from icsr_cli.errors import InputError
from icsr_cli.types import Neighbours

Metric = Literal["l2", "cosine"]
Index = Literal["hnsw", "ivf"]

#: Candidates beyond k that are kept until ties at the border are decided.
SPARE = 8
#: Squared distances of unit vectors nearer to each other than this are decided in float64.
NEAR_TIE = 4e-6
#: Rows and columns of one tile of the distance matrix: 4 MiB, small enough for the cache.
TILE = 1024


@dataclass(frozen=True)
class ApproximateNeighbours(Neighbours):
    """Neighbours from an approximate index. ``recall``: the share of the exact ones that it found."""

    recall: float


def knn(
    features: Any,
    k: int,
    *,
    metric: Metric = "l2",
    device: Any = None,
    approximate: Index | None = None,
) -> Neighbours:
    """Find the k nearest neighbours of every vector, itself included.

    Args:
        features: (n, d) numbers, numpy or torch; finite, no zero vector.
        k: neighbours per vector, 1 to n.
        metric: ``"l2"`` gives squared Euclidean distances (2 - 2 x·y between unit vectors),
            ``"cosine"`` gives 1 - x·y / (|x| |y|).
        device: where to compute; default: where the features are (numpy: the CPU).
        approximate: None searches all pairs. ``"hnsw"`` or ``"ivf"`` asks an index of faiss on the CPU,
            for more than some 200,000 vectors; the result then is an ``ApproximateNeighbours`` with
            ``recall``, measured on 1,000 vectors drawn at random.

    Returns:
        ``indices`` int64 (n, k) and ``distances`` float32 (n, k), nearest first, ties by index, in the
        kind the features came in. A vector is always among its own neighbours, at distance 0, however
        many copies of it there are. (Elsewhere than on the CPU, which of more than 8 vectors that tie at
        the border are taken is the device's choice.)

    Raises:
        InputError: what came is not as said above.

    """
    if approximate not in (None, "hnsw", "ivf"):
        raise InputError(f"approximate must be None, 'hnsw' or 'ivf', got {approximate!r}.")
    if metric not in ("l2", "cosine"):
        raise InputError(f"metric must be 'l2' or 'cosine', got {metric!r}.")
    vectors = check_features(features, device=device)
    k = check_count("k", k, 1)
    if k > len(vectors):
        raise InputError(f"k must be at most the number of features, got k = {k} for {len(vectors)} rows.")
    if metric == "cosine":
        vectors = unit_rows(vectors)
    recall = None
    if approximate is not None:
        from icsr_cli.distances.approximate import search

        indices, distances, recall = search(vectors, k, approximate)
    elif vectors.device.type == "cpu":
        indices, distances = _knn_cpu(vectors, k)
    else:
        indices, distances = _knn_device(vectors, k)
    if metric == "cosine":
        distances = distances / 2
    found: tuple[Any, Any] = (indices.cpu().numpy(), distances.cpu().numpy())
    if isinstance(features, torch.Tensor):
        found = (indices.to(features.device), distances.to(features.device))
    return Neighbours(*found) if recall is None else ApproximateNeighbours(*found, recall)


def _knn_cpu(vectors: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tiles of the upper triangle only: each product serves its row and its column."""
    from icsr_cli.distances import neighbour_kernels as kernels

    n = len(vectors)
    kept = min(n, k + SPARE)
    x = vectors.numpy()
    squares = np.einsum("ij,ij->i", x, x)
    best = np.full((n, kept), np.inf, dtype=np.float32)
    rows = np.full((n, kept), n, dtype=np.int32)
    kernels.seed_with_self(best, rows)
    tile = torch.empty(TILE * TILE)
    for top in range(0, n, TILE):
        bottom = min(top + TILE, n)
        for left in range(top, n, TILE):
            right = min(left + TILE, n)
            view = tile[: (bottom - top) * (right - left)].view(bottom - top, right - left)
            torch.mm(vectors[top:bottom], vectors[left:right].T, out=view)
            _merge_tile(view.numpy(), squares, top, left, best, rows)
    tolerance = np.float32(NEAR_TIE * float(squares.max()))
    in_threads(
        lambda low, high: kernels.settle(x, best, rows, k, tolerance, low, high),
        row_ranges(n, 4 * torch.get_num_threads()),
    )
    indices = torch.from_numpy(rows[:, :k].astype(np.int64))
    return indices, torch.from_numpy(np.ascontiguousarray(best[:, :k]))


def _merge_tile(products: Any, squares: Any, top: int, left: int, best: Any, rows: Any) -> None:
    from icsr_cli.distances import neighbour_kernels as kernels

    height, width = products.shape
    threads = torch.get_num_threads()
    in_threads(
        lambda low, high: kernels.merge_rows(products, squares, top, left, best, rows, low, high),
        row_ranges(height, threads),
    )
    if left != top:
        in_threads(
            lambda low, high: kernels.merge_columns(products, squares, top, left, best, rows, low, high),
            row_ranges(width, threads),
        )


def _knn_device(vectors: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Candidates from faiss or from blocks of products; their order from distances taken directly."""
    kept = min(len(vectors), k + SPARE)
    candidates = None
    if vectors.device.type == "cuda":
        candidates = _faiss_candidates(vectors, kept)
    if candidates is None:
        candidates = _blockwise_candidates(vectors, kept)
    return ordered(vectors, candidates, k)


def _blockwise_candidates(vectors: torch.Tensor, kept: int) -> torch.Tensor:
    n = len(vectors)
    squares = (vectors * vectors).sum(dim=1)
    found = torch.empty((n, kept), dtype=torch.int64, device=vectors.device)
    # A block of distances of at most 1 GiB.
    step = max(1, min(n, 2**28 // n))
    for low in range(0, n, step):
        block = torch.addmm(squares, vectors[low : low + step], vectors.T, alpha=-2)
        found[low : low + step] = block.topk(kept, dim=1, largest=False).indices
    return found


def _faiss_candidates(vectors: torch.Tensor, kept: int) -> torch.Tensor | None:
    """Ask faiss on the GPU that holds the vectors, without a copy; None where it cannot."""
    import faiss

    if kept > 2048 or getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
        return None
    import faiss.contrib.torch_utils  # teaches faiss to take tensors

    device = vectors.device.index or 0
    try:
        resources = faiss.StandardGpuResources()
        found = faiss.knn_gpu(resources, vectors, vectors, kept, device=device)[1]
    except RuntimeError as error:  # a GPU that this faiss was not built for
        warnings.warn(f"faiss failed on GPU {device}, using torch: {error}", stacklevel=2)
        return None
    return torch.as_tensor(found, device=vectors.device).to(torch.int64)


def ordered(
    vectors: torch.Tensor, candidates: torch.Tensor, k: int, *, rows: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the k nearest of the candidates, int64 (m, kept), of ``rows`` (default: all vectors).

    Distances are taken directly, without cancellation; ties go by index; a repeated candidate counts
    once. The result is (indices int64 (m, k), distances float32 (m, k)).
    """
    own = torch.arange(len(vectors), device=vectors.device) if rows is None else rows
    candidates = candidates.sort(dim=1).values
    distances = torch.empty(candidates.shape, device=vectors.device)
    # The gathered vectors take at most 256 MiB.
    step = max(1, 2**26 // (candidates.shape[1] * vectors.shape[1]))
    for low in range(0, len(own), step):
        gathered = vectors[candidates[low : low + step]]
        gathered -= vectors[own[low : low + step], None]
        distances[low : low + step] = (gathered * gathered).sum(dim=2)
    distances[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = torch.inf
    distances, order = distances.sort(dim=1, stable=True)
    indices, distances = candidates.gather(1, order)[:, :k], distances[:, :k]
    # So many copies of a vector that it is not among its own neighbours: it takes the last place.
    lost = (indices != own[:, None]).all(dim=1)
    indices[:, -1] = torch.where(lost, own, indices[:, -1])
    distances[:, -1] = torch.where(lost, 0.0, distances[:, -1])
    return indices.contiguous(), distances.contiguous()
