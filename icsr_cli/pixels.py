"""Pixels on their way to a network: gathered from where they lie and normalised, to train and to embed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from icsr_cli.types import IntArray


def gather(pixels: Any, rows: IntArray, device: torch.device) -> Tensor:
    """Bring the pixels of ``rows`` (b,) to the device: uint8 (b, h, w, 3).

    ``pixels`` uint8 (n, h, w, 3): a numpy array, a memory map for instance, or a tensor on any device. A copy
    from the host to a GPU is pinned, so that nothing waits for it.
    """
    if isinstance(pixels, Tensor):
        index = torch.from_numpy(rows).to(pixels.device, non_blocking=True)
        batch = pixels.index_select(0, index)
    else:
        batch = torch.from_numpy(np.asarray(pixels[rows]))
    if device.type == "cuda" and batch.device.type == "cpu":
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)


def scaled(rows: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Turn uint8 rows of pixels (..., w * 3) into float32: times ``scale`` (w * 3,), plus ``shift``.

    Channels are innermost, so that a whole row is one vector.
    """
    return rows.to(torch.float32).mul_(scale).add_(shift)


def as_images(rows: Tensor, width: int) -> Tensor:
    """View rows of pixels (b, h, w * 3) as images (b, 3, h, w), channels-last in memory."""
    b, h, _ = rows.shape
    return rows.view(b, h, width, 3).permute(0, 3, 1, 2)
