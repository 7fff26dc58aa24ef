"""A store of JPEGs: nearly the pixels of the raw one, any rows at once, and damage that names the image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from icsr_cli.errors import DatasetError
from icsr_cli.images.compressed import encode
from icsr_cli.images.store import open_pixels
from icsr_cli.pixels import fetch, resident
from icsr_cli.types import Dataset


@pytest.fixture(scope="module")
def stores(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("data") / "people" / "pixels"
    raw, packed = (
        open_pixels(tiny.train, folder, 64, 32, name="train", store=store) for store in ("raw", "jpeg")
    )
    return np.array(raw), packed


def test_people_are_nearly_what_they_were(stores: tuple[Any, Any]) -> None:
    raw, packed = stores
    assert (packed.shape, packed.dtype, len(packed)) == (raw.shape, np.uint8, len(raw))
    off = np.abs(packed[np.arange(len(raw))].astype(int) - raw)
    assert 0 < off.mean() < 1.5
    assert off.mean((1, 2, 3)).max() < 3
    assert off.max() < 64
    assert packed.path.stat().st_size < 0.5 * raw.nbytes


def test_colour_is_kept_at_every_pixel(tmp_path: Path) -> None:
    stripes = np.zeros((1, 64, 32, 3), np.uint8)
    stripes[..., 0::2, 0] = stripes[..., 1::2, 2] = 255
    (tmp_path / "stripes.jpg").write_bytes(encode(0, stripes, ())[2])
    with Image.open(tmp_path / "stripes.jpg") as image:
        assert {part[1:3] for part in image.layer} == {(1, 1)}
        assert np.abs(np.asarray(image).astype(int) - stripes[0]).mean() < 4


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_in_any_order_on_any_number_of_threads(
    threads: int, stores: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, packed = stores
    whole = packed[np.arange(len(packed))]
    monkeypatch.setattr("icsr_cli.images.compressed.thread_count", lambda: threads)
    monkeypatch.setattr("icsr_cli.threads.thread_count", lambda: threads)
    rows = np.array([5, 0, 5, len(packed) - 1, 6])
    np.testing.assert_array_equal(packed[rows], whole[rows])
    np.testing.assert_array_equal(packed[rows.tolist()], whole[rows])
    np.testing.assert_array_equal(packed[3], whole[3])
    assert packed[[]].shape == (0, 64, 32, 3)
    np.testing.assert_array_equal(fetch(packed, rows).numpy(), whole[rows])
    np.testing.assert_array_equal(resident(packed, torch.device("cpu")).numpy(), whole)


@pytest.mark.parametrize("rows", [[-1], [0, 10**6]])
def test_rows_that_are_not_there(rows: list[int], stores: tuple[Any, Any]) -> None:
    with pytest.raises(IndexError, match="rows from 0 to"):
        stores[1][rows]


def broken(content: bytes) -> bytes:
    return b"\0" * len(content)


def of_another_size(content: bytes) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    return stream.getvalue().ljust(len(content), b"\0")


def of_endless_size(content: bytes) -> bytes:
    """Four thousand million pixels, its header says."""
    size = content.index(b"\xff\xc0") + 5
    return content[:size] + b"\xff\xdc" * 2 + content[size + 4 :]


@pytest.mark.parametrize("change", [broken, of_another_size, of_endless_size])
def test_damage_names_the_image_and_the_way_out(change: Any, tiny: Dataset, tmp_path: Path) -> None:
    """The other images are read as before."""
    folder = tmp_path / "people" / "pixels"
    packed: Any = open_pixels(tiny.train, folder, 64, 32, name="train", store="jpeg")
    before = packed[np.arange(len(packed))]
    own = slice(*packed.offsets[4:6])
    content = bytearray(packed.path.read_bytes())
    content[own] = change(bytes(content[own]))
    packed.path.write_bytes(content)
    damaged: Any = open_pixels(tiny.train, folder, 64, 32, name="train", store="jpeg")
    rest = [row for row in range(len(packed)) if row != 4]
    np.testing.assert_array_equal(damaged[rest], before[rest])
    name = tiny.train.records[4].path
    with pytest.raises(DatasetError, match=rf"image {name} is damaged there .*icsr prepare people --verify"):
        damaged[[3, 4]]
