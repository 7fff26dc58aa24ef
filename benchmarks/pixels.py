"""Market-1501-sized data: index, pixel store, second start, and an epoch's pixels with and without the store.

    python benchmarks/pixels.py [--preset market1501] [--size 256x128] [--workers N] [--keep DIR]
    python benchmarks/pixels.py --store [--people 375] [--keep DIR]

The first renders the synthetic world (32,217 images that count, and junk) unless ``--keep`` holds it already,
then measures in one process what ``icsr prepare`` and training do. Prints a table and the ratio.

The second puts the raw store beside the one of JPEGs, and the queue ahead of the step beside none, on the
training images of a smaller world of the same kind: bytes, images per second out of the page cache, what the
queue costs there, and (on Linux, where memory cgroups may be made) how long a step waits where the page cache
has room for a quarter of the raw store. A step is then a sleep, as on a GPU that leaves the processors free.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from icsr_cli import datasets
from icsr_cli import pixels as pixels_module
from icsr_cli.datasets import index
from icsr_cli.datasets.layout import FolderLayout, Reading
from icsr_cli.datasets.published import market1501
from icsr_cli.files import read_json
from icsr_cli.images import store
from icsr_cli.images.blocks import Job, work
from icsr_cli.images.store import BLOCK, open_pixels
from icsr_cli.models import build
from icsr_cli.pixels import fetch, upcoming
from icsr_cli.synthesis import World, render
from icsr_cli.threads import usable_cpus
from icsr_cli.types import Dataset, Split

T = TypeVar("T")
BATCH = 64
LAYOUT = FolderLayout(market1501.FOLDERS, market1501.PATTERN, market1501.EXAMPLES, cameras=None)


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

    def make_index() -> Reading:
        reading = LAYOUT.read(images)
        parts = {name: Split(images, records) for name, records in reading.splits.items()}
        index.write(data, Dataset("bench", images, parts, reading.camera_names, layout="synthetic"))
        return reading

    _, index_seconds = timed("read the layout and write the index", make_index)
    dataset, _ = timed("load the index", lambda: datasets.load("bench", data))
    count = sum(len(split) for split in dataset.splits.values())

    def store() -> list[np.ndarray]:
        place = data / "bench" / "pixels"
        return [open_pixels(s, place, *size, name=n, workers=workers) for n, s in dataset.splits.items()]

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


# The forms of store, and the queue -------------------------------------------------------------------

#: Seconds of a step that leaves the processors free, rounds of everything, and steps in a round.
STEP, ROUNDS, STEPS = 0.05, 3, 10
#: Bytes that the process itself may need beside the page cache.
BATCHES_UNDER_WAY = 32 << 20
FORMS = ("raw", "jpeg")
#: Of the network, and of whatever decodes ahead of it.
THREADS = torch.get_num_threads()


def compare_stores(folder: Path, people: int, size: tuple[int, int], workers: int) -> None:
    images, place = folder / f"people-{people}", folder / "stores" / "pixels"
    if not images.is_dir():
        sizes = {"cameras_per_person": (2, 6), "images": (1, 10), "height": 128, "width": 64}
        world = World(train_identities=people, test_identities=2, cameras=6, **sizes)
        timed("render the world", lambda: render(images, world, workers=workers))
    split = Split(images, LAYOUT.read(images).splits["train"])
    opened: dict[str, Any] = {}
    for form in FORMS:
        how: Any = {"name": "train", "store": form, "workers": workers}
        made, _ = timed(f"build the {form} store", partial(open_pixels, split, place, *size, **how))
        opened[form] = made
    files = {"raw": place / f"train-{size[0]}x{size[1]}.npy", "jpeg": opened["jpeg"].path}
    count = len(split)
    print(f"\n{count:,} training images of 128 x 64, kept at {size[0]} x {size[1]}\n\n| store | bytes |")
    print("| --- | ---: |")
    for form in FORMS:
        print(f"| {form} | {files[form].stat().st_size / count:,.0f} |")
    rates(opened)
    cost_of_the_queue(opened)
    del opened, made  # the page cache keeps what somebody has mapped
    waiting(files)


def batches(count: int, steps: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return list(np.resize(draw.permutation(count), (steps, BATCH)).astype(np.int64))


def rates(opened: dict[str, Any]) -> None:
    """Images gathered per second, everything in the page cache; the ways take turns."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for turn in range(ROUNDS + 1):
        for form, pixels in opened.items():
            for threads in (1, 2):
                torch.set_num_threads(threads)
                start, busy = time.perf_counter(), cpu_seconds()
                for rows in batches(len(pixels), STEPS, turn):
                    fetch(pixels, rows)
                spent = time.perf_counter() - start, cpu_seconds() - busy
                if turn:
                    found.setdefault((form, threads), []).append(spent)
    print("\n| store | threads | images/s | images per processor second |\n| --- | ---: | ---: | ---: |")
    for (form, threads), spent in found.items():
        clock, busy = (statistics.median(values) for values in zip(*spent, strict=True))
        print(
            f"| {form} | {threads} | {STEPS * BATCH / clock:,.0f} | {STEPS * BATCH / busy:,.0f} |", flush=True
        )


def plain(pixels: Any, items: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Callable[[], Any]]]:
    """Without a queue: each batch is fetched when it is needed."""
    for rows in items:
        yield rows, partial(fetch, pixels, rows)


def queued(pixels: Any, items: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Callable[[], Any]]]:
    with closing(upcoming(pixels, items, lambda rows: rows)) as queue:
        yield from queue


def cost_of_the_queue(opened: dict[str, Any]) -> None:
    """Train the small ResNet on every fourth pixel, everything in the page cache; the ways take turns."""
    torch.set_num_threads(THREADS)
    network = build("resnet_small", seed=0)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for turn in range(ROUNDS + 1):
        for form, pixels in opened.items():
            for way in (plain, queued):
                start, busy = time.perf_counter(), cpu_seconds()
                for _, fetched in way(pixels, batches(len(pixels), 3, turn)):
                    images = fetched()[:, ::4, ::4].permute(0, 3, 1, 2).float().div_(255)
                    network(images).square().mean().backward()
                if turn:
                    spent = time.perf_counter() - start, cpu_seconds() - busy
                    found.setdefault((form, way.__name__), []).append(spent)
    print("\n| store | a step with the queue / without: clock | processor |\n| --- | ---: | ---: |")
    for form in FORMS:
        pairs = zip(found[form, "queued"], found[form, "plain"], strict=True)
        ratios = [(one[0] / other[0], one[1] / other[1]) for one, other in pairs]
        clock, busy = (statistics.median(values) for values in zip(*ratios, strict=True))
        print(f"| {form} | {clock:.2f} | {busy:.2f} |", flush=True)


@contextmanager
def little_memory(limit: int) -> Iterator[None]:
    """Let this process have ``limit`` bytes for what it reads and allocates from here on, by a cgroup."""
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").is_dir()
    group = (root / "memory" if first else root) / f"pixels-{os.getpid()}"
    controller = "memory:" if first else "0::"
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line for line in lines if controller in line).split(":", 2)[2].lstrip("/")
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (group.parent / own / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def waiting(files: dict[str, Path]) -> None:
    limit = files["raw"].stat().st_size // 4 + BATCHES_UNDER_WAY
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            found = pool.submit(measure_waiting, files, limit).result()
        except OSError as error:
            print(f"\nNo memory cgroup can be made here ({error}): waiting was not measured.")
            return
    print(f"\n{limit / 1e6:.0f} MB for page cache and batches, a step of {STEP * 1e3:.0f} ms\n")
    print("| store | read | queue | waits per step, ms | read per step, MB |")
    print("| --- | --- | --- | ---: | ---: |")
    for (form, read, way), values in found.items():
        wait, much = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {form} | {read} | {'yes' if way == 'queued' else 'no'} | {wait:,.1f} | {much:.1f} |")


def measure_waiting(files: dict[str, Path], limit: int) -> dict[Any, list[tuple[float, float]]]:
    """Seconds a step waits for its pixels, and bytes read; each way begins with an empty page cache."""
    torch.set_num_threads(THREADS)
    found: dict[Any, list[tuple[float, float]]] = {}
    announce = pixels_module.announce
    with little_memory(limit):
        for turn in range(ROUNDS):
            for form, read, way in (
                ("raw", "page by page", plain),
                *((form, "at once", way) for form in FORMS for way in (plain, queued)),
            ):
                alone = read == "page by page"
                pixels_module.announce = (lambda *_: None) if alone else announce
                forget(files.values())
                header = read_json(files[form].with_name(f"{files[form].name.removesuffix('.npy')}.json"))
                pixels = store.FORMS[form].open(files[form], header, ())
                epoch = len(pixels) // BATCH
                if not alone:
                    an_epoch(way, pixels, batches(len(pixels), epoch, turn), 0.0)
                steps = 5 if alone else epoch
                spent = an_epoch(way, pixels, batches(len(pixels), steps, turn + 100), STEP)
                found.setdefault((form, read, way.__name__), []).append(spent)
                del pixels
    return found


def an_epoch(way: Any, pixels: Any, rows: list[np.ndarray], step: float) -> tuple[float, float]:
    waited, before = 0.0, bytes_read()
    for _, fetched in way(pixels, rows):
        start = time.perf_counter()
        fetched()
        waited += time.perf_counter() - start
        time.sleep(step)
    return waited / len(rows) * 1e3, (bytes_read() - before) / len(rows) / 1e6


def bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def forget(files: Iterable[Path]) -> None:
    """Let the page cache forget files."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="market1501")
    parser.add_argument("--size", default="256x128")
    parser.add_argument("--workers", type=int, default=usable_cpus())
    parser.add_argument("--keep", type=Path, help="folder for the rendered images, kept for the next time")
    parser.add_argument("--store", action="store_true", help="compare the forms of store, and the queue")
    parser.add_argument("--people", type=int, default=375, help="with --store: people that are rendered")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.store:
            compare_stores(folder, options.people, (height, width), options.workers)
        else:
            measure(folder, options.preset, (height, width), options.workers)


if __name__ == "__main__":
    main()
