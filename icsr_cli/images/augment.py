"""Augmentation of whole batches on the device, each image by its own dice; normalisation."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from icsr_cli.errors import InputError
from icsr_cli.pixels import as_images, scaled
from icsr_cli.types import IMAGENET, PixelNorm, Three

_TRIES = 100


def normalise(pixels: Tensor, norm: PixelNorm = IMAGENET) -> Tensor:
    """Uint8 (b, h, w, 3) to float32 (b, 3, h, w): (x / 255 - mean) / std, channels-last in memory.

    Raises InputError for another shape or type.
    """
    _check_pixels(pixels)
    b, h, w, _ = pixels.shape
    return as_images(_normalise_rows(pixels.reshape(b, h, w * 3), norm), w)


def _check_pixels(pixels: Tensor) -> None:
    shape = tuple(pixels.shape)
    if len(shape) != 4 or shape[3] != 3 or 0 in shape or pixels.dtype != torch.uint8:
        raise InputError(f"pixels: expected uint8 (b, h, w, 3) with b >= 1, got {pixels.dtype} {shape}.")


@lru_cache(maxsize=64)
def _tiled(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """Three values over and over: float32 (width * 3,), kept, because making it waits for the device."""
    with torch.inference_mode(False):
        return torch.tensor(values).repeat(width).to(device)


def _normalise_rows(rows: Tensor, norm: PixelNorm) -> Tensor:
    """Normalise uint8 (..., w * 3); channels are innermost, so that whole rows are one vector."""
    width = rows.shape[-1] // 3
    scale = tuple(1 / (255 * std) for std in norm.std)
    shift = tuple(-mean / std for mean, std in zip(norm.mean, norm.std, strict=True))
    return scaled(rows, _tiled(scale, width, rows.device), _tiled(shift, width, rows.device))


@dataclass(frozen=True)
class Augmentation:
    """Flip, pad and crop, normalise, erase: uint8 (b, height, width, 3) to float32 (b, 3, height, width).

    Each image is flipped with probability ``flip``; padded with ``pad`` pixels on all sides, ``black`` as
    published or those of its ``edge`` over and over, and cut to its size at a random place; normalised by
    ``norm``, the network's; and with probability ``erase`` loses a rectangle of ``erase_area`` (share of the
    image) and ``erase_aspect`` (height by width), filled with ``fill`` after the normalisation (random
    erasing, arXiv 1708.04896: up to 100 tries for a rectangle that fits).
    """

    height: int
    width: int
    flip: float = 0.5
    pad: int = 10
    border: Literal["black", "edge"] = "black"
    erase: float = 0.5
    erase_area: tuple[float, float] = (0.02, 0.4)
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    fill: Three = (0.485, 0.456, 0.406)
    norm: PixelNorm = IMAGENET

    def draw(self, b: int, generator: torch.Generator) -> Tensor:
        """Throw the dice of ``b`` images: float32 (b, dice), a row each, on the generator's device.

        That may be the CPU where pixels lie elsewhere: then both draw the same numbers.
        """
        return torch.rand((b, 6 + 2 * _TRIES), generator=generator, device=generator.device)

    def apply(self, pixels: Tensor, dice: Tensor) -> Tensor:
        """Augment uint8 (b, h, w, 3), each image by its row of what ``draw`` gave.

        The result is channels-last in memory and on the device of ``pixels``. Nothing waits for the device.
        Raises InputError for pixels of another shape or type.
        """
        _check_pixels(pixels)
        if tuple(pixels.shape[1:3]) != (self.height, self.width):
            raise InputError(
                f"pixels: expected images of {self.height} x {self.width} (height x width), got "
                f"{pixels.shape[1]} x {pixels.shape[2]}. Resize them first."
            )
        dice = dice.to(pixels.device, non_blocking=True)
        rows = _normalise_rows(self._flip_and_crop(pixels, dice[:, :3]), self.norm)
        if self.erase > 0:
            hole = self._holes(dice[:, 3:])
            rows = torch.where(hole, _tiled(self.fill, self.width, rows.device), rows)
        return as_images(rows, self.width)

    def _flip_and_crop(self, pixels: Tensor, dice: Tensor) -> Tensor:
        """Uint8 (b, height, width, 3) to (b, height, width * 3), flipped, padded and cropped."""
        b, pad = len(pixels), self.pad
        tall, wide = self.height + 2 * pad, self.width + 2 * pad
        # Both versions of each image lie padded in one buffer; a row of the result is a stretch of it.
        buffer = pixels.new_zeros((2, b, tall, wide, 3))
        inner = buffer[:, :, pad : pad + self.height, pad : pad + self.width]
        inner[0] = pixels
        inner[1] = pixels.permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1)
        if self.border == "edge" and pad > 0:
            _repeat_edges(buffer, pad)
        flipped = dice[:, 0] < self.flip
        offset = (dice[:, 1:3] * (2 * pad + 1)).long().clamp_(max=2 * pad)
        image = torch.arange(b, device=pixels.device) + b * flipped
        first = (image * tall + offset[:, 0]) * wide + offset[:, 1]
        start = first[:, None] + torch.arange(self.height, device=pixels.device) * wide
        length = self.width * 3
        stretches = buffer.view(-1).unfold(0, length, 3)  # one for each pixel to start at, no copy
        return stretches.index_select(0, start.view(-1)).view(b, self.height, length)

    def _holes(self, dice: Tensor) -> Tensor:
        """Bool (b, height, width * 3): what is erased. ``dice`` are (b, 3 + 2 * tries)."""
        area = _between(dice[:, 3 : 3 + _TRIES], self.erase_area) * (self.height * self.width)
        aspect = _between(dice[:, 3 + _TRIES :], self.erase_aspect)
        tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (tall < self.height) & (wide < self.width)
        first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
        tall, wide = tall.gather(1, first), wide.gather(1, first)
        chosen = fits.gather(1, first) & (dice[:, :1] < self.erase)
        tall = torch.where(chosen, tall, 0)
        top = (dice[:, 1:2] * (self.height - tall + 1)).floor().minimum(self.height - tall)
        left = (dice[:, 2:3] * (self.width - wide + 1)).floor().minimum(self.width - wide)
        row = torch.arange(self.height, device=dice.device)
        column = torch.arange(self.width, device=dice.device).repeat_interleave(3)
        in_rows = (row >= top) & (row < top + tall)
        in_columns = (column >= left) & (column < left + wide)
        return in_rows[:, :, None] & in_columns[:, None, :]


def _repeat_edges(buffer: Tensor, pad: int) -> None:
    """Fill the borders of (2, b, tall, wide, 3) with the nearest pixels: first the sides, then whole rows."""
    middle = buffer[:, :, pad:-pad]
    middle[:, :, :, :pad] = middle[:, :, :, pad : pad + 1]
    middle[:, :, :, -pad:] = middle[:, :, :, -pad - 1 : -pad]
    buffer[:, :, :pad] = buffer[:, :, pad : pad + 1]
    buffer[:, :, -pad:] = buffer[:, :, -pad - 1 : -pad]


def _between(dice: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    return low + (high - low) * dice
