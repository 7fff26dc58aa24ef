"""k nearest neighbours on any torch device."""

import warnings

import torch

from icsr_cli.exact_search import SPARE
from icsr_cli.threads import blocks


def search_device(
    vectors: torch.Tensor, k: int, share: tuple[int, int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Search the neighbours of the vectors from share[0] to share[1] (default: of all) on their device.

    Candidates come from faiss or from blocks of products, their order from distances taken directly. What
    all vectors have in common is taken off before they are multiplied, as on the CPU.
    """
    low, high = share or (0, len(vectors))
    kept = min(len(vectors), k + SPARE)
    centred, candidates = vectors - vectors.mean(dim=0), None
    if vectors.device.type == "cuda":
        candidates = _faiss_candidates(centred, centred[low:high], kept)
    if candidates is None:
        candidates = _blockwise_candidates(centred, centred[low:high], kept)
    return ordered(vectors, candidates, k, low)


def _blockwise_candidates(vectors: torch.Tensor, queries: torch.Tensor, kept: int) -> torch.Tensor:
    squares = (vectors * vectors).sum(dim=1)
    found = torch.empty((len(queries), kept), dtype=torch.int64, device=vectors.device)
    # A block of distances of at most 1 GiB.
    for rows in blocks(len(queries), len(vectors), 2**28):
        block = torch.addmm(squares, queries[rows], vectors.T, alpha=-2)
        found[rows] = block.topk(kept, dim=1, largest=False).indices
    return found


def _faiss_candidates(vectors: torch.Tensor, queries: torch.Tensor, kept: int) -> torch.Tensor | None:
    """Ask faiss on the GPU that holds the vectors, without a copy; None where it cannot."""
    import faiss

    if kept > 2048 or getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
        return None
    import faiss.contrib.torch_utils  # teaches faiss to take tensors

    device = vectors.device.index or 0
    try:
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(2**28)  # by default it takes 1.5 GB, beside a network in training
        found = faiss.knn_gpu(resources, queries, vectors, kept, device=device)[1]
    except RuntimeError as error:  # a GPU that this faiss was not built for
        warnings.warn(f"faiss failed on GPU {device}, using torch: {error}", stacklevel=2)
        return None
    return torch.as_tensor(found, device=vectors.device).to(torch.int64)


def ordered(
    vectors: torch.Tensor, candidates: torch.Tensor, k: int, first: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the k nearest of the candidates, int64 (m, kept), of the vectors from ``first`` on.

    Distances are taken directly, without cancellation, and in float64: rounded to float32 each device has
    other ties. Equal ones go by index; a repeated candidate counts once. The result is (indices int64
    (m, k), distances float32 (m, k)).
    """
    own = torch.arange(first, first + len(candidates), device=vectors.device)
    candidates = candidates.sort(dim=1).values
    distances = torch.empty(candidates.shape, device=vectors.device, dtype=torch.float64)
    # The gathered vectors take at most 256 MiB.
    for rows in blocks(len(own), candidates.shape[1] * vectors.shape[1], 2**25):
        gathered = vectors[candidates[rows]].double()
        gathered -= vectors[own[rows], None]
        distances[rows] = gathered.square_().sum(dim=2)
    distances[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = torch.inf
    distances, order = distances.sort(dim=1, stable=True)
    indices, distances = candidates.gather(1, order)[:, :k], distances[:, :k]
    # So many copies of a vector that it is not among its own neighbours: it takes the last place.
    lost = (indices != own[:, None]).all(dim=1)
    indices[:, -1] = torch.where(lost, own, indices[:, -1])
    distances[:, -1] = torch.where(lost, 0.0, distances[:, -1])
    return indices.contiguous(), distances.float()
