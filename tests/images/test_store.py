"""The pixel store: right, whole, resumed, rebuilt when the source changed, and never half there."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icsr_cli.errors import DatasetError, InputError
from icsr_cli.images import blocks, store
from icsr_cli.images.decode import decode_resized
from icsr_cli.images.store import build_pixels, check_images, open_pixels, verify_pixels
from icsr_cli.progress import SilentProgress, SilentTask
from icsr_cli.types import ImageRecord, Split

COUNT = 23


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(store, "BLOCK", 4)


@pytest.fixture
def split(tmp_path) -> Split:
    random = np.random.default_rng(0)
    (tmp_path / "x").mkdir()
    for number in range(COUNT):
        height, width = random.integers(5, 20, 2)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "x" / f"{number}.png")
    return Split(tmp_path, tuple(ImageRecord(f"x/{number}.png", 0) for number in range(COUNT)))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "pixels"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that were decoded since, in order."""
    seen: list[str] = []

    def spy(path, height, width):
        seen.append(Path(path).name)
        return decode_resized(path, height, width)

    monkeypatch.setattr(blocks, "decode_resized", spy)
    return seen


def expected(split: Split, height: int = 8, width: int = 6) -> np.ndarray:
    return np.stack([decode_resized(split.root / record.path, height, width) for record in split.records])


def test_pixels_are_those_of_pillow_and_decoded_once(split, folder, decoded):
    pixels = open_pixels(split, folder, 8, 6, name="train")
    assert len(decoded) == COUNT
    assert (pixels.array.dtype, pixels.array.shape) == (np.uint8, (COUNT, 8, 6, 3))
    assert (len(pixels), pixels.height, pixels.width) == (COUNT, 8, 6)
    np.testing.assert_array_equal(pixels.array, expected(split))
    assert not pixels.array.flags.writeable
    again = open_pixels(split, folder, 8, 6, name="train")
    np.testing.assert_array_equal(again.array, pixels.array)
    assert len(decoded) == COUNT, "a second start decodes nothing"
    assert np.load(pixels.path).shape == (COUNT, 8, 6, 3), "any reader of .npy files opens it"
    assert sorted(path.name for path in folder.iterdir()) == [
        "train-8x6.json",
        "train-8x6.lock",
        "train-8x6.npy",
    ]


def test_parts_and_sizes_have_their_own_files(split, folder):
    first = open_pixels(split, folder, 8, 6, name="train")
    other = open_pixels(split.select([2, 1]), folder, 4, 4, name="query")
    np.testing.assert_array_equal(other.array, expected(split.select([2, 1]), 4, 4))
    np.testing.assert_array_equal(first.array, expected(split))


def test_processes_give_the_same(split, folder, monkeypatch):
    monkeypatch.setattr(blocks, "_WORTH_PROCESSES", 1)
    ticks: list[int] = []

    class Task(SilentTask):
        def advance(self, count: int = 1) -> None:
            ticks.append(count)

    class Progress(SilentProgress):
        def task(self, title, total, unit="it"):
            assert (title, total, unit) == ("train-8x6", COUNT, "images")
            return Task()

    pixels = open_pixels(split, folder, 8, 6, name="train", workers=2, progress=Progress())
    np.testing.assert_array_equal(pixels.array, expected(split))
    assert sum(ticks) == COUNT


def change_content(split):
    Image.new("RGB", (9, 9), "red").save(split.root / "x/7.png")
    return split


def change_time(split):
    os.utime(split.root / "x/7.png", ns=(1, 1))
    return split


def change_order(split):
    return split.select([*range(1, COUNT), 0])


def change_count(split):
    return split.select(range(COUNT - 1))


@pytest.mark.parametrize("change", [change_content, change_time, change_order, change_count])
def test_rebuilt_when_the_source_changed(change, split, folder, decoded):
    open_pixels(split, folder, 8, 6, name="train")
    decoded.clear()
    split = change(split)
    np.testing.assert_array_equal(open_pixels(split, folder, 8, 6, name="train").array, expected(split))
    assert len(decoded) == len(split)


def cut_off(folder):
    path = folder / "train-8x6.npy"
    path.write_bytes(path.read_bytes()[:-1])


def wrong_header(folder):
    (folder / "train-8x6.json").write_text("{")


def no_header(folder):
    (folder / "train-8x6.json").unlink()


def other_array(folder):
    size = (folder / "train-8x6.npy").stat().st_size - 128
    np.save(folder / "train-8x6.npy", np.zeros(size // 2, dtype=np.uint16))


@pytest.mark.parametrize("damage", [cut_off, wrong_header, no_header, other_array])
def test_rebuilt_when_it_is_damaged(damage, split, folder):
    open_pixels(split, folder, 8, 6, name="train")
    damage(folder)
    np.testing.assert_array_equal(open_pixels(split, folder, 8, 6, name="train").array, expected(split))


def stop_after(monkeypatch, count: int, fault: BaseException) -> None:
    """Let the build end with ``fault`` when ``count`` blocks are written."""
    written = []
    write = blocks._write_at

    def fail(path, offset, pixels):
        if len(written) == count:
            raise fault
        written.append(offset)
        write(path, offset, pixels)

    monkeypatch.setattr(blocks, "_write_at", fail)


def test_resumed_after_an_interrupt(split, folder, decoded, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            open_pixels(split, folder, 8, 6, name="train")
    assert not (folder / "train-8x6.npy").exists()
    decoded.clear()
    pixels = open_pixels(split, folder, 8, 6, name="train")
    assert decoded == [f"{number}.png" for number in range(12, COUNT)]
    np.testing.assert_array_equal(pixels.array, expected(split))


def test_a_block_that_did_not_reach_the_disk_is_done_again(split, folder, decoded, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            open_pixels(split, folder, 8, 6, name="train")
    array = np.load(folder / "train-8x6.npy.part", mmap_mode="r+")
    array[4:8] = 0
    array.flush()
    with (folder / "train-8x6.npy.part.log").open("a") as log:
        log.write("[4, 4, 12")  # cut off in the middle of a line
    decoded.clear()
    pixels = open_pixels(split, folder, 8, 6, name="train")
    assert decoded == [f"{number}.png" for number in [4, 5, 6, 7, *range(12, COUNT)]]
    np.testing.assert_array_equal(pixels.array, expected(split))


def test_not_resumed_when_the_source_changed(split, folder, decoded, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            open_pixels(split, folder, 8, 6, name="train")
    decoded.clear()
    change_content(split)
    np.testing.assert_array_equal(open_pixels(split, folder, 8, 6, name="train").array, expected(split))
    assert len(decoded) == COUNT


def test_an_old_store_outlives_a_failed_build(split, folder, monkeypatch):
    open_pixels(split, folder, 8, 6, name="train")
    before = (folder / "train-8x6.npy").read_bytes()
    change_time(split)
    stop_after(monkeypatch, 2, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(
        DatasetError, match=r"Cannot write .*train-8x6.npy: No space left on device.*make room"
    ):
        open_pixels(split, folder, 8, 6, name="train")
    assert (folder / "train-8x6.npy").read_bytes() == before


def test_a_full_disk_is_said_before_anything_is_written(split, folder, monkeypatch):
    usage = store.shutil.disk_usage(split.root)._replace(free=COUNT * 8 * 6 * 3 - 1)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DatasetError, match=r"need 0.00 GB in .*pixels, and 0.00 GB are free"):
        open_pixels(split, folder, 8, 6, name="train")
    assert not list(folder.glob("*.npy*"))


def test_a_killed_process_is_said(split, folder, monkeypatch):
    class Pool:
        def __init__(self, *arguments, **options): ...
        def __enter__(self):
            return self

        def __exit__(self, *arguments): ...
        def submit(self, function, job):
            return job

        def shutdown(self, **options): ...

    def broken(futures):
        raise BrokenProcessPool

    monkeypatch.setattr(blocks, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(blocks, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(blocks, "as_completed", broken)
    with pytest.raises(DatasetError, match="was killed, often for want of memory"):
        open_pixels(split, folder, 8, 6, name="train", workers=2)


ORPHAN = """
import os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from icsr_cli.images.blocks import _start_process
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_start_process)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_with_a_killed_parent(tmp_path):
    (tmp_path / "parent.py").write_text(ORPHAN)
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    command = [sys.executable, str(tmp_path / "parent.py")]
    # The worker holds the same standard output: the pipe ends only when it has ended too.
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL
    assert int(run.stdout) > 0


def spoil(split: Split, rows: list[int]) -> None:
    for row in rows:
        (split.root / split.records[row].path).write_bytes(b"no image")


@pytest.mark.parametrize("rows", [[0], [COUNT - 1], [3, 4, 5, 11], [*range(8)], [*range(1, COUNT)]])
def test_bad_images_leave_no_gap(rows, split, folder, decoded):
    spoil(split, rows)
    pixels, bad = build_pixels(split, folder, 8, 6, name="train")
    assert [(item.row, item.path, item.reason) for item in bad] == [
        (row, f"x/{row}.png", "not an image") for row in rows
    ]
    good = split.select([row for row in range(COUNT) if row not in rows])
    assert pixels is not None
    np.testing.assert_array_equal(pixels.array, expected(good))
    decoded.clear()
    np.testing.assert_array_equal(open_pixels(good, folder, 8, 6, name="train").array, expected(good))
    assert build_pixels(split, folder, 8, 6, name="train")[1] == bad
    assert decoded == [], "the store of the good ones is found from both sides"
    assert verify_pixels(folder) == ()
    with pytest.raises(
        DatasetError, match=rf"{len(rows)} of {COUNT} images of 'train' .*{rows[0]}.png: not an im"
    ):
        open_pixels(split, folder, 8, 6, name="train")


def test_nothing_but_bad_images(split, folder):
    spoil(split, list(range(COUNT)))
    pixels, bad = build_pixels(split, folder, 8, 6, name="train")
    assert pixels is None
    assert len(bad) == COUNT
    assert not list(folder.glob("*.npy*"))


def test_images_that_went_away_are_named(split, folder):
    open_pixels(split, folder, 8, 6, name="train")
    (split.root / "x/5.png").unlink()
    with pytest.raises(DatasetError, match=r"x/5.png: no such file"):
        open_pixels(split, folder, 8, 6, name="train")


def test_an_empty_split_and_a_bad_size(split, folder):
    assert build_pixels(Split(split.root, ()), folder, 8, 6, name="train") == (None, ())
    for height, width in ((0, 6), (8, -1)):
        with pytest.raises(InputError, match="both start at 1"):
            open_pixels(split, folder, height, width, name="train")


def test_verify_finds_a_flipped_bit_and_takes_the_store_away(split, folder):
    path = open_pixels(split, folder, 8, 6, name="train").path
    assert verify_pixels(folder) == ()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (fault,) = verify_pixels(folder)
    assert "1 blocks of 4 images are damaged, first 5" in fault
    assert not path.exists()
    np.testing.assert_array_equal(open_pixels(split, folder, 8, 6, name="train").array, expected(split))


def test_verify_reports_what_cannot_be_opened(split, folder):
    open_pixels(split, folder, 8, 6, name="train")
    header = json.loads((folder / "train-8x6.json").read_text())
    (folder / "train-8x6.json").write_text(json.dumps({**header, "crc32": header["crc32"][:-1]}))
    (folder / "query-8x6.json").write_text("{}")
    assert len(verify_pixels(folder)) == 2


def test_check_images_reads_and_keeps_nothing(split, folder):
    spoil(split, [9, 2])
    assert [item.row for item in check_images(split, name="train")] == [2, 9]
    assert not folder.exists()
