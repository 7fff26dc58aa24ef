"""What the measures accept: features of numpy or torch, checked once; a message names the argument."""

from typing import Any

import torch

from icsr_cli.errors import InputError


def feature_matrices(
    query: Any, gallery: Any, device: torch.device | str | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give both (numpy or torch) as float32 (q, d) and (g, d) on one device.

    That is ``device`` if given, else where ``query`` is if it is a tensor, else the GPU if there is one.
    Raises InputError where one is no matrix, is empty, holds numbers that are not finite, or has other
    dimensions than the other.
    """
    if device is None and isinstance(query, torch.Tensor):
        device = query.device
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    queries, candidates = _matrix(query, "query", where), _matrix(gallery, "gallery", where)
    if queries.shape[1] != candidates.shape[1]:
        raise InputError(
            f"query has {queries.shape[1]} dimensions and gallery {candidates.shape[1]}; expected the same. "
            "Extract both with the same model."
        )
    return queries, candidates


def _matrix(features: Any, name: str, device: torch.device) -> torch.Tensor:
    matrix = torch.as_tensor(features).detach()
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(
            f"{name} has shape {tuple(matrix.shape)}; expected (images, dimensions), neither of them 0. "
            "Pass one feature vector per image."
        )
    if matrix.is_complex():
        raise InputError(f"{name} has type {matrix.dtype}; expected real numbers. Pass float features.")
    matrix = matrix.to(device=device, dtype=torch.float32).contiguous()
    # A sum is finite only if all its numbers are: one pass, and no mask of the matrix's size.
    if not bool(torch.isfinite(matrix.sum(1)).all()):
        raise InputError(
            f"{name} holds numbers that are not finite (NaN or infinity); expected finite features. "
            "Look for a diverged model or for half precision that overflowed."
        )
    return matrix
