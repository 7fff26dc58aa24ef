"""Pixels are the same wherever they lie, and a row of them is scaled as each of its values is."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icsr_cli.pixels import as_images, fetch, resident, scaled, upcoming, upload

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 4, 3, 3)).astype(np.uint8)
ROWS = np.array([7, 0, 7, 3])


@pytest.mark.parametrize("kind", ["array", "map", "tensor"])
def test_pixels_are_gathered_in_the_order_asked_for(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", PIXELS)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    given = {"array": PIXELS, "map": mapped, "tensor": torch.from_numpy(PIXELS)}[kind]
    found = upload(fetch(given, ROWS), torch.device("cpu"))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), PIXELS[ROWS])
    assert upload(fetch(given, ROWS[:0]), torch.device("cpu")).shape == (0, 4, 3, 3)


def test_rows_are_scaled_channel_by_channel() -> None:
    scale, shift = torch.tensor([0.5, 2.0, 0.25]), torch.tensor([-1.0, 0.0, 3.0])
    rows = torch.from_numpy(PIXELS).flatten(2)
    images = as_images(scaled(rows, scale.repeat(3), shift.repeat(3)), 3)
    expected = PIXELS.astype(np.float32) * scale.numpy() + shift.numpy()
    np.testing.assert_array_equal(images.numpy(), expected.transpose(0, 3, 1, 2))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert rows.dtype == torch.uint8  # what was given stays


@pytest.fixture
def mapped(tmp_path: Path) -> Any:
    np.save(tmp_path / "pixels.npy", PIXELS)
    return np.load(tmp_path / "pixels.npy", mmap_mode="r")


BATCHES = [np.array(rows, np.int64) for rows in ([7, 0], [3], [2, 2, 8], [], [5, 4], [1], [6, 6])]


def test_a_queue_gives_what_would_be_gathered_and_begins_two_batches_before(mapped: Any) -> None:
    asked: list[int] = []
    begun = threading.Semaphore(0)

    def rows(number: int) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        asked.append(number)
        begun.release()
        return BATCHES[number]

    with closing(upcoming(mapped, range(len(BATCHES)), rows)) as queue:
        for number, fetched in queue:
            np.testing.assert_array_equal(fetched().numpy(), PIXELS[BATCHES[number]])
            if number == 0:
                for _ in range(3):
                    assert begun.acquire(timeout=60)
                assert asked == [0, 1, 2], "while the caller has the first"
    assert asked == list(range(len(BATCHES)))


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_what_is_in_memory_is_gathered_by_the_caller(kind: str) -> None:
    asked: list[int] = []

    def rows(number: int) -> Any:
        assert threading.current_thread() is threading.main_thread()
        asked.append(number)
        return BATCHES[number]

    given: Any = {"array": PIXELS, "tensor": torch.from_numpy(PIXELS)}[kind]
    for number, fetched in upcoming(given, range(len(BATCHES)), rows):
        assert number not in asked
        np.testing.assert_array_equal(fetched().numpy(), PIXELS[BATCHES[number]])


def test_a_fault_of_the_thread_reaches_the_step_it_was_for(mapped: Any) -> None:
    def rows(number: int) -> Any:
        if number == 3:
            raise OSError("the disk is gone")
        return BATCHES[number]

    done = []
    with closing(upcoming(mapped, range(9), rows)) as queue:
        for number, fetched in queue:
            if number == 3:
                with pytest.raises(OSError, match="the disk is gone"):
                    fetched()
                break
            done.append(fetched())
    assert len(done) == 3


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_a_step_that_fails_ends_the_thread(fault: type[BaseException], mapped: Any) -> None:
    before, asked = threading.active_count(), []

    def rows(number: int) -> Any:
        asked.append(number)
        return BATCHES[number]

    def walk() -> None:
        with closing(upcoming(mapped, range(len(BATCHES)), rows)) as queue:
            for number, _ in queue:
                if number == 1:
                    raise fault

    with pytest.raises(fault):
        walk()
    assert threading.active_count() == before
    assert max(asked) <= 3, "two ahead, and no more"


def test_advice_to_the_system_changes_no_pixel(mapped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of whole pages, rows twice and out of order, neighbours; what is no map of its own is let be."""
    many = np.resize(PIXELS, (999, 4, 3, 3))
    np.save(mapped.filename, many)
    stored = np.load(mapped.filename, mmap_mode="r")
    for rows in ([998, 0, 500, 500, 501], [*range(999)], []):
        np.testing.assert_array_equal(fetch(stored, np.array(rows, np.int64)).numpy(), many[rows])
    np.testing.assert_array_equal(fetch(stored[5:], np.array([3, 1])).numpy(), many[[8, 6]])
    monkeypatch.delattr("mmap.MADV_WILLNEED", raising=False)
    np.testing.assert_array_equal(fetch(stored, np.array([3, 1])).numpy(), many[[3, 1]])


def test_everything_comes_to_the_device() -> None:
    many = np.resize(PIXELS, (2500, 4, 3, 3))
    np.testing.assert_array_equal(resident(many, torch.device("cpu")).numpy(), many)
