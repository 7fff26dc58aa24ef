"""Approximate nearest neighbours, for more vectors than all pairs of them can be compared."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch

from icsr_cli.distances.neighbours_torch import ordered
from icsr_cli.types import FloatArray

#: Vectors whose exact neighbours are searched to measure the recall.
SAMPLE = 1000
#: So many candidates per neighbour are looked at; their distances are taken exactly.
CANDIDATES = 2


def search(
    features: FloatArray | torch.Tensor, k: int, index: Literal["hnsw", "ivf"]
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Give indices int64 (n, k), distances float32 (n, k) and the recall of an index of faiss.

    ``"hnsw"`` is a graph of 32 links a vector (Malkov and Yashunin, arXiv 1603.09320), ``"ivf"``
    4 sqrt(n) inverted lists of which 1/16, at least 16, are visited. Recall is the share of the exact
    neighbours of a sample that was found; the sample is the same for the same n.
    """
    import faiss

    vectors = torch.as_tensor(features)
    x = vectors.cpu().numpy()
    n, d = x.shape
    kept = min(n, CANDIDATES * k)
    if index == "hnsw":
        structure = faiss.IndexHNSWFlat(d, 32)
        structure.hnsw.efConstruction = 100
        structure.hnsw.efSearch = max(64, 2 * kept)
        structure.add(x)
    else:
        structure = _inverted_lists(x)
    found = torch.from_numpy(structure.search(x, kept)[1]).to(vectors.device)
    # A search that ended early left -1: the vector itself stands in, where it found k all the same.
    short = (found >= 0).sum(dim=1) < k
    found = torch.where(found < 0, torch.arange(n, device=found.device)[:, None], found)
    indices, distances = ordered(vectors, found, k)
    if bool(short.any()):
        rows = short.nonzero().flatten()
        indices[rows], distances[rows] = _exact(vectors, rows, k)
    return indices, distances, _recall(vectors, indices)


def _exact(vectors: torch.Tensor, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Search these rows among all, a block at a time."""
    parts = []
    for block in torch.split(rows, max(1, 2**26 // len(vectors))):
        squares = (vectors * vectors).sum(dim=1)
        near = torch.addmm(squares, vectors[block], vectors.T, alpha=-2).topk(k, dim=1, largest=False)
        parts.append(ordered(vectors, near.indices, k, rows=block))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _recall(vectors: torch.Tensor, indices: torch.Tensor) -> float:
    n, k = indices.shape
    sample = np.random.default_rng(0).choice(n, size=min(n, SAMPLE), replace=False)
    rows = torch.from_numpy(np.sort(sample)).to(vectors.device)
    exact = _exact(vectors, rows, k)[0]
    hits = (exact[:, :, None] == indices[rows][:, None, :]).any(dim=2)
    return float(hits.double().mean())


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
