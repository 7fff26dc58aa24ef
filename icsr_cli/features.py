"""Features of images: one row per image, in order, on the device."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from icsr_cli.checks import check_count, image_numbers
from icsr_cli.errors import InputError
from icsr_cli.pixels import as_images, scaled, upcoming, upload
from icsr_cli.progress import Task, Watch, unwatched
from icsr_cli.types import IMAGENET, IntArray, PixelNorm

PRECISIONS = ("fp32", "bf16")


def extract(
    model: nn.Module,
    pixels: Any,
    rows: Any = None,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    task: Task | None = None,
    watch: Watch = unwatched,
) -> Tensor:
    """Embed images: float32 (n, d) on ``device``, in the order of ``rows``.

    Args:
        model: float (b, 3, h, w), normalised by its ``norm`` (ImageNet's where it has none), to (b, d);
            already on ``device``. It is put into evaluation mode meanwhile.
        pixels: uint8 (m, h, w, 3), a numpy array (a memory map as well) or a tensor on any device.
        rows: int (n,), which images; all of them by default.
        batch_size: images in one forward pass, at least 1.
        device: where to compute.
        precision: ``fp32``, or ``bf16`` for autocast on a GPU (on a CPU it is fp32 all the same).
        task: told of every image that is done.
        watch: times ``pixels, extraction`` and ``network, extraction``.

    Raises:
        InputError: shapes, types, rows or numbers do not fit.
    """
    device = torch.device(device)
    chosen = _check(pixels, rows, batch_size, precision)
    if len(chosen) == 0:
        return torch.empty((0, int(getattr(model, "dim", 0))), device=device)
    task = task or Task()
    half = precision == "bf16" and device.type == "cuda"
    scale, shift = _constants(getattr(model, "norm", IMAGENET), int(pixels.shape[2]), device)
    features: Tensor | None = None

    def batch_rows(first: int) -> IntArray:
        return chosen[first : first + batch_size]

    with (
        torch.inference_mode(),
        _evaluating(model),
        torch.autocast(device.type, torch.bfloat16, enabled=half),
        closing(upcoming(pixels, range(0, len(chosen), batch_size), batch_rows)) as queue,
    ):
        for first, fetched in queue:
            with watch("pixels, extraction"):
                batch = upload(fetched(), device)
                images = as_images(scaled(batch.flatten(2), scale, shift), batch.shape[2])
            with watch("network, extraction"):
                found = model(images)
            if features is None:
                with torch.inference_mode(False):  # an ordinary tensor, which training may use
                    features = torch.empty((len(chosen), found.shape[1]), device=device)
            features[first : first + len(batch)] = found
            task.advance(len(batch))
    assert features is not None
    return features


def _check(pixels: Any, rows: Any, batch_size: int, precision: str) -> IntArray:
    shape = tuple(getattr(pixels, "shape", ()))
    kind = getattr(pixels, "dtype", type(pixels).__name__)
    if len(shape) != 4 or shape[3] != 3 or kind not in (torch.uint8, np.uint8):
        raise InputError(f"pixels: expected uint8 (n, h, w, 3), got {kind} {shape}.")
    check_count("batch_size", batch_size)
    if precision not in PRECISIONS:
        raise InputError(f"precision: {precision!r} is not one of {', '.join(PRECISIONS)}.")
    if rows is None:
        return np.arange(shape[0], dtype=np.int64)
    return image_numbers("rows", rows, shape[0])


def _constants(norm: PixelNorm, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and shift of a normalisation, once per value of an image's row."""
    mean, std = torch.tensor(norm.mean), torch.tensor(norm.std)
    return (1 / (255 * std)).repeat(width).to(device), (-mean / std).repeat(width).to(device)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
