"""Approximate nearest neighbours, for more vectors than all pairs of them can be compared exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from icsr_cli.distances import neighbour_kernels as kernels
from icsr_cli.distances.features import SPARE, Index, squared_lengths
from icsr_cli.distances.neighbours_cpu import Multiply, nearest_lists, settled
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import ALONE, FloatArray

#: Vectors whose exact neighbours are searched to measure the recall.
SAMPLE = 1000
#: So many candidates per neighbour are looked at; their distances are taken exactly.
CANDIDATES = 2
#: Fewer dimensions serve where so many of the sample's neighbours are still among the candidates.
ENOUGH = 0.985
#: Vectors from which the directions of the most spread are taken.
_FITTED = 20_000


def search(x: FloatArray, k: int, index: Index) -> tuple[Any, Any, float]:
    """Give indices int64 (n, k), distances float32 (n, k) and the recall of candidates taken roughly.

    ``"int8"`` compares all pairs by codes of 8 bits, in the fewest dimensions (64, 128, 256, ... of the most
    spread) that keep the neighbours of a sample. Of faiss: ``"hnsw"`` is a graph of 32 links a vector (Malkov
    and Yashunin, arXiv 1603.09320), ``"ivf"`` 4 sqrt(n) inverted lists of which 1/16, at least 16, are
    visited. Recall is the share of the exact neighbours of the sample, which is the same for the same n,
    that was found.
    """
    n = len(x)
    sample = np.sort(np.random.default_rng(0).choice(n, size=min(n, SAMPLE), replace=False))
    exact = _exact(x, sample, k)
    kept = min(n, max(CANDIDATES * k, k + SPARE))
    rows = _by_codes(x, kept, sample, exact) if index == "int8" else _by_index(x, k, kept, index)
    best = np.empty(rows.shape, dtype=np.float32)
    in_threads(lambda low, high: kernels.measure(x, best, rows, low, high), row_ranges(n))
    indices, distances = settled(x, best, rows, k, float(squared_lengths(x).max()), 0, n)
    hits = (exact[:, :, None] == indices[sample][:, None, :]).any(axis=2)
    return indices, distances, float(hits.mean())


def _exact(x: FloatArray, rows: Any, k: int) -> Any:
    """Search these rows among all, a block at a time: int (m, k), in no order, itself among them."""
    squares = squared_lengths(x)
    found = np.empty((len(rows), k), dtype=np.int32)
    for block in _blocks(len(rows), len(x)):
        distances = x[rows[block]] @ x.T
        distances *= -2
        distances += squares
        distances[np.arange(len(distances)), rows[block]] = -np.inf
        found[block] = np.argpartition(distances, k - 1, axis=1)[:, :k]
    return found


def _blocks(m: int, n: int) -> Iterator[slice]:
    """Cut m rows so that a block of m x n numbers takes some 256 MiB."""
    step = max(1, 2**26 // n)
    return (slice(low, low + step) for low in range(0, m, step))


# Codes of 8 bits ------------------------------------------------------------------------------------


def _by_codes(x: FloatArray, kept: int, sample: Any, exact: Any) -> Any:
    """Give the nearest of each vector by its codes: int32 (n, kept), itself first."""
    centre, axes = _principal_axes(x)
    width = 64
    while True:
        codes, squares = _encode(x, centre, axes[:, :width])
        if width >= x.shape[1] or _share_kept(codes, squares, kept, sample[::4], exact[::4]) >= ENOUGH:
            break
        width *= 2
    threads = torch.get_num_threads()
    try:
        return nearest_lists(squares.numpy(), kept, multiplier(codes), np.int32, ALONE)[1]
    finally:
        torch.set_num_threads(threads)


def multiplier(codes: torch.Tensor) -> Multiply:
    """Give what writes the products of codes, int8 (n, width), as int32; torch then has one thread here."""

    def multiply(top: slice, left: slice, products: Any) -> None:
        if torch.get_num_threads() > 1:  # of this thread of the search
            torch.set_num_threads(1)
        torch._int_mm(codes[top], codes[left].T, out=torch.from_numpy(products))

    return multiply


def _principal_axes(x: FloatArray) -> tuple[Any, Any]:
    """Give the mean (d,) and the directions of the most spread, the first the widest: float32 (d, d)."""
    fitted = np.random.default_rng(0).choice(len(x), size=min(len(x), _FITTED), replace=False)
    some = x[np.sort(fitted)]
    centre = some.mean(axis=0)
    some -= centre
    axes = np.linalg.eigh((some.T @ some).astype(np.float64))[1]
    return centre, np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)


def _encode(x: FloatArray, centre: Any, axes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Give codes int8 (n, width) along the axes, turned so that all spread alike; and squares."""
    width = axes.shape[1]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))[0]
    axes = axes @ turn.astype(np.float32)
    most = _largest_code()
    axes *= most / np.abs((x[:_FITTED] - centre) @ axes).max()
    # Columns of zeros fill up to eight: products of codes of one column come out wrong in torch 2.14.
    codes, squares = np.zeros((len(x), -(-width // 8) * 8), dtype=np.int8), np.empty(len(x), dtype=np.float32)
    for low in range(0, len(x), _FITTED):
        part = (x[low : low + _FITTED] - centre) @ axes
        np.rint(part, out=part).clip(-most, most, out=part)
        codes[low : low + _FITTED, :width], squares[low : low + _FITTED] = part, squared_lengths(part)
    return torch.from_numpy(codes), torch.from_numpy(squares)


def _largest_code() -> int:
    """Give 127; 63 where the processor adds two products in 16 bits, too few for larger ones."""
    codes = torch.full((32, 64), 127, dtype=torch.int8)
    return 127 if int(torch._int_mm(codes, codes.T).min()) == 64 * 127**2 else 63


def _share_kept(codes: torch.Tensor, squares: torch.Tensor, kept: int, sample: Any, exact: Any) -> float:
    """Give the share of the sample's neighbours that are among the ``kept`` nearest by their codes."""
    hits = 0
    for block in _blocks(len(sample), len(codes)):
        distances = squares - 2 * torch._int_mm(codes[sample[block]], codes.T)
        limits = distances.kthvalue(kept, dim=1, keepdim=True).values
        hits += int((distances.gather(1, torch.from_numpy(exact[block]).long()) <= limits).sum())
    return float(hits / exact.size)


# Indices of faiss -----------------------------------------------------------------------------------


def _by_index(x: FloatArray, k: int, kept: int, index: Index) -> Any:
    """Give what an index finds for each vector: int32 (n, kept + 1), itself first, -1 for nothing."""
    structure = _graph(x, kept) if index == "hnsw" else _inverted_lists(x)
    found = structure.search(x, kept)[1].astype(np.int32)
    # A search that ended early is done exactly.
    [short] = np.nonzero((found >= 0).sum(axis=1) < k)
    found[short, :k] = _exact(x, short, k)
    return np.column_stack([np.arange(len(x), dtype=np.int32), found])


def _graph(x: Any, kept: int) -> Any:
    import faiss

    graph = faiss.IndexHNSWFlat(x.shape[1], 32)
    graph.hnsw.efConstruction = 100
    graph.hnsw.efSearch = max(64, 2 * kept)
    graph.add(x)
    return graph


def _inverted_lists(x: Any) -> Any:
    import faiss

    n, d = x.shape
    lists = max(1, min(n // 39, 4 * math.isqrt(n)))
    quantizer = faiss.IndexFlatL2(d)
    inverted = faiss.IndexIVFFlat(quantizer, d, lists)
    inverted.cp.seed = 1
    inverted.train(x)
    inverted.add(x)
    inverted.nprobe = min(lists, max(16, lists // 16))
    return inverted
