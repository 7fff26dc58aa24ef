"""Exact k nearest neighbours."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch

from icsr_cli.distances.features import check_count, check_features, in_threads, row_ranges, unit_rows
from icsr_cli.errors import InputError
from icsr_cli.types import Neighbours

Metric = Literal["l2", "cosine"]

#: Candidates beyond k that are kept until ties at the border are decided.
SPARE = 8
#: Squared distances of unit vectors nearer to each other than this are decided in float64.
NEAR_TIE = 4e-6
#: Rows and columns of one tile of the distance matrix: 4 MiB, small enough for the cache.
TILE = 1024


def knn(features: Any, k: int, *, metric: Metric = "l2", device: Any = None) -> Neighbours:
    """Find the exact k nearest neighbours of every vector, itself included.

    Args:
        features: (n, d) numbers, numpy or torch; finite, no zero vector.
        k: neighbours per vector, 1 to n.
        metric: ``"l2"`` gives squared Euclidean distances (2 - 2 x·y between unit vectors),
            ``"cosine"`` gives 1 - x·y / (|x| |y|).
        device: where to compute; default: where the features are (numpy: the CPU).

    Returns:
        ``indices`` int64 (n, k) and ``distances`` float32 (n, k), nearest first, ties by index, in the
        kind the features came in. A vector is always among its own neighbours, at distance 0, however
        many copies of it there are.

    Raises:
        InputError: what came is not as said above.

    """
    if metric not in ("l2", "cosine"):
        raise InputError(f"metric must be 'l2' or 'cosine', got {metric!r}.")
    vectors = check_features(features, device=device)
    k = check_count("k", k, 1)
    if k > len(vectors):
        raise InputError(f"k must be at most the number of features, got k = {k} for {len(vectors)} rows.")
    if metric == "cosine":
        vectors = unit_rows(vectors)
    if vectors.device.type == "cpu":
        indices, distances = _knn_cpu(vectors, k)
    else:
        indices, distances = _knn_device(vectors, k)
    if metric == "cosine":
        distances = distances / 2
    if isinstance(features, torch.Tensor):
        return Neighbours(indices.to(features.device), distances.to(features.device))
    return Neighbours(indices.cpu().numpy(), distances.cpu().numpy())


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
    return _ordered(vectors, candidates, k)


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


def _ordered(vectors: torch.Tensor, candidates: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort candidates by their distance, taken directly and without cancellation; ties by index."""
    n, kept = candidates.shape
    own = torch.arange(n, device=vectors.device)
    candidates = candidates.sort(dim=1).values
    distances = torch.empty((n, kept), device=vectors.device)
    # The gathered vectors take at most 1 GiB.
    step = max(1, 2**28 // (kept * vectors.shape[1]))
    for low in range(0, n, step):
        gathered = vectors[candidates[low : low + step]]
        gathered -= vectors[low : low + step, None]
        distances[low : low + step] = (gathered * gathered).sum(dim=2)
    distances, order = distances.sort(dim=1, stable=True)
    indices, distances = candidates.gather(1, order)[:, :k], distances[:, :k]
    # So many copies of a vector that it is not among its own neighbours: it takes the last place.
    lost = (indices != own[:, None]).all(dim=1)
    indices[:, -1] = torch.where(lost, own, indices[:, -1])
    distances[:, -1] = torch.where(lost, 0.0, distances[:, -1])
    return indices.contiguous(), distances.contiguous()
