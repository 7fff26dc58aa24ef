"""Approximate nearest neighbours, for more vectors than all pairs of them can be compared exactly."""

import math
from typing import Any

import numpy as np
import torch

from icsr_cli.distances.codes import encode
from icsr_cli.distances.features import Index, squared_lengths
from icsr_cli.distances.rough import Rough
from icsr_cli.exact_search import BLOCK, NEAR_TIE, SPARE, Among, measure, nearest_of, settled
from icsr_cli.threads import blocks
from icsr_cli.types import ALONE, FloatArray

#: Vectors whose exact neighbours are searched to measure the recall.
SAMPLE = 1000
#: Candidates for each neighbour; their distances are taken exactly.
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
    exact = nearest_of(x, sample, Among(k), None)
    kept = min(n, max(CANDIDATES * k, k + SPARE))
    keys = _by_codes(x, kept, sample, exact) if index == "int8" else _by_index(x, k, kept, index)
    measure(x, keys, k, np.arange(n))
    indices, distances = settled(x, keys, k, NEAR_TIE * squared_lengths(x).max(), ALONE)
    hits = (exact[:, :, None] == indices[sample][:, None, :]).any(axis=2)
    return indices, distances, float(hits.mean())


def _by_codes(x: FloatArray, kept: int, sample: Any, exact: Any) -> Any:
    """Give the nearest of each vector by its codes, itself first: keys (n, kept)."""
    centre, axes = _principal_axes(x)
    width = 64
    while True:
        codes = _encode(x, centre, axes[:, :width])
        if width >= x.shape[1] or _share_kept(codes, kept, sample[::4], exact[::4]) >= ENOUGH:
            [keys] = codes.nearest([Among(kept)], np.zeros(len(x), dtype=np.int64), ALONE)
            return keys
        width *= 2


def _encode(x: FloatArray, centre: Any, axes: Any) -> Rough:
    """Give the codes of x along the axes (d, width)."""
    return encode(len(x), axes.shape[1], lambda block: (x[block] - centre) @ axes)


def _principal_axes(x: FloatArray) -> tuple[Any, Any]:
    """Give the mean (d,) and the directions of the most spread, the first the widest: float32 (d, d)."""
    fitted = np.random.default_rng(0).choice(len(x), size=min(len(x), _FITTED), replace=False)
    some = x[np.sort(fitted)]
    centre = some.mean(axis=0)
    some -= centre
    axes = np.linalg.eigh((some.T @ some).astype(np.float64))[1]
    return centre, np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)


def _share_kept(codes: Rough, kept: int, sample: Any, exact: Any) -> float:
    """Give the share of the sample's neighbours that are among the ``kept`` nearest by their codes."""
    hits = 0
    for block in blocks(len(sample), len(codes.squares), BLOCK):
        distances = torch.from_numpy(codes.squared_distances(sample[block]))
        limits = distances.kthvalue(kept, dim=1, keepdim=True).values
        hits += int((distances.gather(1, torch.from_numpy(exact[block])) <= limits).sum())
    return float(hits / exact.size)


def _by_index(x: FloatArray, k: int, kept: int, index: Index) -> Any:
    """Give what an index finds for each vector, itself first: keys (n, kept + 1) without distances."""
    structure = _graph(x, kept) if index == "hnsw" else _inverted_lists(x)
    found = structure.search(x, kept)[1]
    # A search that ended early is done exactly.
    [short] = np.nonzero((found >= 0).sum(axis=1) < k)
    found[short, :k] = nearest_of(x, short, Among(k), None)
    found[found < 0] = len(x)
    return np.column_stack([np.arange(len(x)), found]).astype(np.uint64)


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
