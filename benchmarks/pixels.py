"""Market-1501-sized data: index, pixel store, second start, and an epoch's pixels with and without the store.

    python benchmarks/pixels.py [--preset market1501] [--size 256x128] [--workers N] [--keep DIR]

Renders the synthetic world (32,217 images that count, and junk) unless ``--keep`` holds it already, then
measures in one process what ``icsr prepare`` and training do. Prints a table and the ratio.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from icsr_cli import datasets
from icsr_cli.datasets import index
from icsr_cli.datasets.layout import FolderLayout, Reading
from icsr_cli.datasets.published import market1501
from icsr_cli.images.blocks import Job, work
from icsr_cli.images.store import BLOCK, open_pixels
from icsr_cli.synthesis import World, render
from icsr_cli.threads import usable_cpus
from icsr_cli.types import Dataset, Split

T = TypeVar("T")
BATCH = 64


def timed(title: str, step: Callable[[], T]) -> tuple[T, float]:
    """Print seconds on the clock, and of all processes' CPU: the second says more on a busy machine."""
    start, busy = time.perf_counter(), cpu_seconds()
    result = step()
    seconds = time.perf_counter() - start
    print(f"{title:<58} {seconds:8.2f} s {cpu_seconds() - busy:8.2f} s CPU", flush=True)
    return result, seconds


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def epoch_from_files(split: Split, size: tuple[int, int], workers: int) -> None:
    """Decode and resize every image once, as a training without a store does at each epoch."""
    paths = [f"{split.root}/{record.path}" for record in split.records]
    starts = range(0, len(paths), BLOCK)
    jobs = [Job(n, start, paths[start : start + BLOCK], size) for n, start in enumerate(starts)]
    for result in work(jobs, workers):
        assert not result.bad


def epoch_from_store(array: np.ndarray) -> int:
    """Gather every image once, in random batches, into memory of one's own."""
    order = np.random.default_rng(0).permutation(len(array))
    total = 0
    for start in range(0, len(order), BATCH):
        batch = array[order[start : start + BATCH]]
        total += int(batch[0, 0, 0, 0])
    return total


def measure(folder: Path, preset: str, size: tuple[int, int], workers: int) -> None:
    data, images = folder / "data", folder / f"images-{preset}"
    world = World.preset(preset)
    if not images.is_dir():
        timed("render the world", lambda: render(images, world, workers=workers))
    shutil.rmtree(data, ignore_errors=True)
    layout = FolderLayout(market1501.FOLDERS, market1501.PATTERN, market1501.EXAMPLES, cameras=None)

    def make_index() -> Reading:
        reading = layout.read(images)
        parts = {name: Split(images, records) for name, records in reading.splits.items()}
        index.write(data, Dataset("bench", images, parts, reading.camera_names, layout="synthetic"))
        return reading

    _, index_seconds = timed("read the layout and write the index", make_index)
    dataset, _ = timed("load the index", lambda: datasets.load("bench", data))
    count = sum(len(split) for split in dataset.splits.values())

    def store() -> list[np.ndarray]:
        place = data / "bench" / "pixels"
        return [
            open_pixels(s, place, *size, name=n, workers=workers).array for n, s in dataset.splits.items()
        ]

    arrays, build = timed(f"build the pixel store, {workers} processes", store)
    timed("open it again (second start)", store)
    train = dataset.train
    _, files = timed(
        f"an epoch decoded from {len(train):,} files", lambda: epoch_from_files(train, size, workers)
    )
    _, pixels = timed(
        f"an epoch gathered from the store, {len(train):,} images", lambda: epoch_from_store(arrays[0])
    )
    gigabytes = sum(array.nbytes for array in arrays) / 1e9
    print(f"\n{count:,} images, {gigabytes:.2f} GB of pixels at {size[0]}x{size[1]}")
    print(f"index {count / index_seconds:,.0f} images/s, store {count / build:,.0f} images/s")
    print(f"an epoch from the store against decoding: {files / pixels:.1f} times as fast")
    print(f"building the store costs as much as {build / files * len(train) / count:.1f} epochs of decoding")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="market1501")
    parser.add_argument("--size", default="256x128")
    parser.add_argument("--workers", type=int, default=usable_cpus())
    parser.add_argument("--keep", type=Path, help="folder for the rendered images, kept for the next time")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        measure(options.keep, options.preset, (height, width), options.workers)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.preset, (height, width), options.workers)


if __name__ == "__main__":
    main()
