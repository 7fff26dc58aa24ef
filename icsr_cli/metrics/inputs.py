"""What the measures accept: arrays of numpy or torch, checked once, with messages that name the argument."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from icsr_cli.checks import as_numpy
from icsr_cli.errors import InputError
from icsr_cli.types import IntArray


def integer_vector(values: Any, name: str, length: int | None = None) -> IntArray:
    """Give ``values`` (numpy, torch or a sequence of whole numbers) as int64 (n,).

    Raises InputError when it is not one-dimensional, not whole numbers, or not ``length`` long.
    """
    array = as_numpy(values)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} has shape {array.shape} and type {array.dtype}; expected one whole number per image. "
            "Pass a one-dimensional integer array."
        )
    if length is not None and len(array) != length:
        raise InputError(
            f"{name} has {len(array)} entries, but there are {length} images. "
            "Pass one entry per image, in the same order."
        )
    return np.asarray(array, dtype=np.int64)


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
