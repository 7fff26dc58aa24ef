"""Pixels are the same wherever they lie, and a row of them is scaled as each of its values is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from icsr_cli.pixels import as_images, gather, scaled

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 4, 3, 3)).astype(np.uint8)
ROWS = np.array([7, 0, 7, 3])


@pytest.mark.parametrize("kind", ["array", "map", "tensor"])
def test_pixels_are_gathered_in_the_order_asked_for(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", PIXELS)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    given = {"array": PIXELS, "map": mapped, "tensor": torch.from_numpy(PIXELS)}[kind]
    found = gather(given, ROWS, torch.device("cpu"))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), PIXELS[ROWS])
    assert gather(given, ROWS[:0], torch.device("cpu")).shape == (0, 4, 3, 3)


def test_rows_are_scaled_channel_by_channel() -> None:
    scale, shift = torch.tensor([0.5, 2.0, 0.25]), torch.tensor([-1.0, 0.0, 3.0])
    rows = torch.from_numpy(PIXELS).flatten(2)
    images = as_images(scaled(rows, scale.repeat(3), shift.repeat(3)), 3)
    expected = PIXELS.astype(np.float32) * scale.numpy() + shift.numpy()
    np.testing.assert_array_equal(images.numpy(), expected.transpose(0, 3, 1, 2))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert rows.dtype == torch.uint8  # what was given stays
