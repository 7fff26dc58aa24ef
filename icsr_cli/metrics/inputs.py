"""What the measures accept: features of numpy or torch, checked once; a message names the argument."""

from typing import Any

import torch

from icsr_cli.errors import InputError


def feature_matrix(features: Any, name: str, device: torch.device) -> torch.Tensor:
    """Give ``features`` (numpy or torch) as float32 (n, d) on ``device``.

    Raises InputError when it is no matrix, is empty, or holds numbers that are not finite.
    """
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


def same_width(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """Raise InputError unless both have the same number of dimensions."""
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query has {query.shape[1]} dimensions and gallery {gallery.shape[1]}; expected the same. "
            "Extract both with the same model."
        )


def compute_device(features: Any, device: torch.device | str | None) -> torch.device:
    """Where to compute: ``device`` if given, else where a tensor is, else the GPU if there is one."""
    if device is not None:
        return torch.device(device)
    if isinstance(features, torch.Tensor):
        return features.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
