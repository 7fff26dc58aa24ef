"""Either form of pixel store: right, whole, resumed, rebuilt when the source changed, never half there."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icsr_cli import processes
from icsr_cli.errors import DatasetError, InputError
from icsr_cli.images import blocks, compressed, decode, store
from icsr_cli.images.decode import decode_resized
from icsr_cli.images.store import check_images, verify_pixels
from icsr_cli.progress import Progress, Task
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

    monkeypatch.setattr(decode, "decode_resized", spy)
    return seen


@dataclass(frozen=True)
class Kind:
    """A form of store, and what its header and the file of its images are called."""

    form: Any
    title: str
    file: str

    def open(self, split: Split, folder: Path, *size: int, name: str = "train", **how: Any) -> Any:
        return store.open_pixels(split, folder, *(size or (8, 6)), name=name, store=self.form, **how)

    def build(self, split: Split, folder: Path) -> Any:
        return store.build_pixels(split, folder, 8, 6, name="train", store=self.form)

    def expected(self, split: Split, height: int = 8, width: int = 6) -> np.ndarray:
        images = [decode_resized(split.root / record.path, height, width) for record in split.records]
        if self.form == "jpeg":
            _, lengths, data = compressed.encode(0, np.stack(images), ())
            parts = np.split(np.frombuffer(data, np.uint8), np.cumsum(lengths)[:-1])
            images = [np.asarray(Image.open(io.BytesIO(part.data))) for part in parts]
        return np.stack(images)


KINDS = [
    Kind("raw", "train-8x6", "train-8x6.npy"),
    Kind("jpeg", "train-8x6.jpegs", "train-8x6.jpegs"),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.form)
def kind(request) -> Kind:
    return request.param


def everything(pixels: Any) -> np.ndarray:
    return pixels[np.arange(len(pixels))]


def test_pixels_are_those_of_pillow_and_decoded_once(kind, split, folder, decoded):
    pixels = kind.open(split, folder)
    assert len(decoded) == COUNT
    assert (len(pixels), pixels.dtype, pixels.shape) == (COUNT, np.uint8, (COUNT, 8, 6, 3))
    np.testing.assert_array_equal(everything(pixels), kind.expected(split))
    again = kind.open(split, folder)
    np.testing.assert_array_equal(everything(again), everything(pixels))
    assert len(decoded) == COUNT, "a second start decodes nothing"
    if kind.form == "raw":
        assert not pixels.flags.writeable
        assert np.load(folder / kind.file).shape == (COUNT, 8, 6, 3), "any reader of .npy files opens it"
    beside = {"raw": (), "jpeg": ("train-8x6.jpegs.offsets.npy",)}[kind.form]
    names = {f"{kind.title}.json", f"{kind.title}.lock", kind.file, *beside}
    assert {path.name for path in folder.iterdir()} == names


def test_parts_and_sizes_have_their_own_files(kind, split, folder):
    first = kind.open(split, folder)
    other = kind.open(split.select([2, 1]), folder, 4, 4, name="query")
    np.testing.assert_array_equal(everything(other), kind.expected(split.select([2, 1]), 4, 4))
    np.testing.assert_array_equal(everything(first), kind.expected(split))


def test_processes_give_the_same(kind, split, folder, monkeypatch):
    monkeypatch.setattr(blocks, "_WORTH_PROCESSES", 1)
    ticks: list[int] = []

    class Ticking(Task):
        def advance(self, count: int = 1) -> None:
            ticks.append(count)

    class Counting(Progress):
        def task(self, title, total, unit="it"):
            assert (title, total, unit) == (kind.title, COUNT, "images")
            return Ticking()

    pixels = kind.open(split, folder, workers=2, progress=Counting())
    np.testing.assert_array_equal(everything(pixels), kind.expected(split))
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
def test_rebuilt_when_the_source_changed(kind, change, split, folder, decoded):
    kind.open(split, folder)
    decoded.clear()
    split = change(split)
    np.testing.assert_array_equal(everything(kind.open(split, folder)), kind.expected(split))
    assert len(decoded) == len(split)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-1])


def wrong_header(path):
    path.with_name(f"{path.name.removesuffix('.npy')}.json").write_text("{")


def no_header(path):
    path.with_name(f"{path.name.removesuffix('.npy')}.json").unlink()


def other_array(path):
    np.save(path, np.zeros((path.stat().st_size - 128) // 2, dtype=np.uint16))


def offsets(change):
    def damage(path):
        beside = path.with_name(f"{path.name}.offsets.npy")
        change(beside, np.load(beside))

    damage.__name__ = change.__name__
    return damage


def no_offsets(path, array):
    path.unlink()


def moved_offsets(path, array):
    np.save(path, array + np.arange(len(array)) % 2)


def offsets_of_another_type(path, array):
    np.save(path, array.astype(np.int32))


DAMAGES = [(kind, damage) for kind in KINDS for damage in (cut_off, wrong_header, no_header)]
DAMAGES += [(KINDS[0], other_array)]
DAMAGES += [(KINDS[1], offsets(change)) for change in (no_offsets, moved_offsets, offsets_of_another_type)]


@pytest.mark.parametrize(
    ("kind", "damage"), DAMAGES, ids=lambda value: getattr(value, "form", getattr(value, "__name__", ""))
)
def test_rebuilt_when_it_is_damaged(kind, damage, split, folder):
    kind.open(split, folder)
    damage(folder / kind.file)
    np.testing.assert_array_equal(everything(kind.open(split, folder)), kind.expected(split))


def stop_after(monkeypatch, count: int, fault: BaseException) -> None:
    """Let the build end with ``fault`` when ``count`` blocks are written."""
    kept: list[Any] = []
    keep = store._Build._kept

    def fail(build, result):
        if len(kept) == count:
            raise fault
        kept.append(keep(build, result))
        return kept[-1]

    monkeypatch.setattr(store._Build, "_kept", fail)


def test_resumed_after_an_interrupt(kind, split, folder, decoded, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            kind.open(split, folder)
    assert not (folder / kind.file).exists()
    decoded.clear()
    pixels = kind.open(split, folder)
    assert decoded == [f"{number}.png" for number in range(12, COUNT)]
    np.testing.assert_array_equal(everything(pixels), kind.expected(split))


def test_a_block_that_did_not_reach_the_disk_is_done_again(kind, split, folder, decoded, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            kind.open(split, folder)
    partial = folder / f"{kind.file}.part"
    lines = (folder / f"{partial.name}.log").read_text().splitlines()[1:]
    sizes = [sum(json.loads(line)[4]) or 4 * 8 * 6 * 3 for line in lines]
    content = bytearray(partial.read_bytes())
    start = sizes[0] + (128 if kind.form == "raw" else 0)
    content[start : start + sizes[1]] = bytes(sizes[1])
    partial.write_bytes(content)
    with (folder / f"{partial.name}.log").open("a") as log:
        log.write("[" * 100_000 + "\n")
        log.write("[4, 4, 12")  # cut off in the middle of a line
    decoded.clear()
    pixels = kind.open(split, folder)
    again = [4, 5, 6, 7, *range(12, COUNT)] if kind.form == "raw" else range(4, COUNT)
    assert decoded == [f"{number}.png" for number in again]
    np.testing.assert_array_equal(everything(pixels), kind.expected(split))


def test_not_resumed_when_the_source_changed(kind, split, folder, decoded, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            kind.open(split, folder)
    decoded.clear()
    change_content(split)
    np.testing.assert_array_equal(everything(kind.open(split, folder)), kind.expected(split))
    assert len(decoded) == COUNT


def test_an_old_store_outlives_a_failed_build(kind, split, folder, monkeypatch):
    kind.open(split, folder)
    before = (folder / kind.file).read_bytes()
    change_time(split)
    stop_after(monkeypatch, 2, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(
        DatasetError, match=rf"Cannot write .*{kind.file}: No space left on device.*make room"
    ):
        kind.open(split, folder)
    assert (folder / kind.file).read_bytes() == before


def test_a_full_disk_is_said_before_anything_is_written(kind, split, folder, monkeypatch):
    usage = store.shutil.disk_usage(split.root)._replace(
        free=COUNT * 8 * 6 * 3 // (1 if kind.form == "raw" else 64) - 1
    )
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        DatasetError, match=r"need (at least )?[\d.]+ (kB|bytes) in .*pixels, and [\d.]+ (kB|bytes) are free"
    ):
        kind.open(split, folder)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_a_killed_process_is_said(kind, split, folder, monkeypatch):
    class Pool:
        def __init__(self, *arguments, **options): ...
        def __enter__(self):
            return self

        def __exit__(self, *arguments): ...
        def submit(self, function, job):
            found: Future[Any] = Future()
            found.set_exception(BrokenProcessPool())
            return found

        def shutdown(self, **options): ...

    monkeypatch.setattr(blocks, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(processes, "Processes", Pool)
    with pytest.raises(DatasetError, match="was killed, often for want of memory"):
        kind.open(split, folder, workers=2)


ORPHAN = """
import os, signal
from icsr_cli.processes import Processes
if __name__ == "__main__":
    pool = Processes(1)
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
def test_bad_images_leave_no_gap(kind, rows, split, folder, decoded):
    spoil(split, rows)
    pixels, bad = kind.build(split, folder)
    assert [(item.row, item.path, item.reason) for item in bad] == [
        (row, f"x/{row}.png", "not an image") for row in rows
    ]
    good = split.select([row for row in range(COUNT) if row not in rows])
    assert pixels is not None
    np.testing.assert_array_equal(everything(pixels), kind.expected(good))
    decoded.clear()
    np.testing.assert_array_equal(everything(kind.open(good, folder)), kind.expected(good))
    assert kind.build(split, folder)[1] == bad
    assert decoded == [], "the store of the good ones is found from both sides"
    assert verify_pixels(folder) == ()
    with pytest.raises(
        DatasetError, match=rf"{len(rows)} of {COUNT} images of 'train' .*{rows[0]}.png: not an im"
    ):
        kind.open(split, folder)


def test_nothing_but_bad_images(kind, split, folder):
    spoil(split, list(range(COUNT)))
    pixels, bad = kind.build(split, folder)
    assert pixels is None
    assert len(bad) == COUNT
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_images_that_went_away_are_named(kind, split, folder):
    kind.open(split, folder)
    (split.root / "x/5.png").unlink()
    with pytest.raises(DatasetError, match=r"x/5.png: no such file"):
        kind.open(split, folder)


def test_an_empty_split_and_a_bad_size(kind, split, folder):
    assert kind.build(Split(split.root, ()), folder) == (None, ())
    for height, width in ((0, 6), (8, -1)):
        with pytest.raises(InputError, match="both start at 1"):
            kind.open(split, folder, height, width, name="train")


def test_verify_finds_a_flipped_bit_and_takes_the_store_away(kind, split, folder):
    kind.open(split, folder)
    path = folder / kind.file
    assert verify_pixels(folder) == ()
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    (fault,) = verify_pixels(folder)
    assert "1 blocks of 4 images are damaged, first 5" in fault
    assert not path.exists()
    np.testing.assert_array_equal(everything(kind.open(split, folder)), kind.expected(split))


def test_verify_reports_what_cannot_be_opened(kind, split, folder):
    kind.open(split, folder)
    header = json.loads((folder / f"{kind.title}.json").read_text())
    (folder / f"{kind.title}.json").write_text(json.dumps({**header, "crc32": header["crc32"][:-1]}))
    (folder / "query-8x6.json").write_text("{}")
    assert len(verify_pixels(folder)) == 2


def test_check_images_reads_and_keeps_nothing(split, folder):
    spoil(split, [9, 2])
    assert [item.row for item in check_images(split, name="train")] == [2, 9]
    assert not folder.exists()
