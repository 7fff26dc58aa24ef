"""The pixel store: every image decoded once, resized once, kept as uint8 in one memory-mapped file.

A store is ``<part>-<height>x<width>.npy`` (any reader of NumPy's format opens it) and, written after it, a
JSON file with its fingerprint and the checksums of its blocks. While it is built it is called ``*.part``;
blocks that are done are noted in ``*.part.log``, and an interrupted build goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from icsr_cli.errors import DatasetError, InputError
from icsr_cli.files import map_array, read_json, stamp, write_json
from icsr_cli.images.blocks import Job, Result, work
from icsr_cli.progress import Progress, SilentProgress
from icsr_cli.threads import usable_cpus
from icsr_cli.types import Split

#: Images per block: the unit of parallel work, of the log, and of the checksums.
BLOCK = 256
#: Part of the fingerprint; to be changed with anything that changes pixels.
_VERSION = "1: Pillow bicubic, RGB, over white, EXIF orientation"


@dataclass(frozen=True)
class Pixels:
    """An open store: ``array`` uint8 (n, height, width, 3), RGB, read-only, in record order."""

    array: npt.NDArray[np.uint8]
    path: Path

    def __len__(self) -> int:
        return int(self.array.shape[0])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.array.shape[1])

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.array.shape[2])


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read: its row in the split, its path in the record, and why."""

    row: int
    path: str
    reason: str


def open_pixels(split: Split, folder: Path, height: int, width: int, *, name: str, **how: Any) -> Pixels:
    """Open the store of a split, building it where there is none or the source has changed.

    Arguments as of ``build_pixels``.

    Raises DatasetError where an image cannot be read or the disk is full; InputError for a size below 1.
    """
    pixels, bad = build_pixels(split, folder, height, width, name=name, **how)
    if bad:
        examples = "; ".join(f"{item.path}: {item.reason}" for item in bad[:5])
        raise DatasetError(
            f"{len(bad)} of {len(split)} images of {name!r} under {split.root} cannot be read any more "
            f"({examples}). Put them back, or prepare the data set again: it leaves out what it cannot read."
        )
    assert pixels is not None
    return pixels


def build_pixels(
    split: Split,
    folder: Path,
    height: int,
    width: int,
    *,
    name: str,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Pixels | None, tuple[BadImage, ...]]:
    """Open or build as ``open_pixels`` does, but leave out the images that cannot be read and name them.

    The store then holds the split without them, and is None where nothing is left. ``folder`` holds the
    stores of the data set, ``name`` is the part (``train``, ``query``, ...). ``workers`` counts processes
    (default: the CPUs this process may use). From a script, guard the call with
    ``if __name__ == "__main__"``: the processes import the script.
    """
    if height < 1 or width < 1:
        raise InputError(f"An image of height {height} and width {width} was asked for; both start at 1.")
    build = _Build(split, folder, height, width, name)
    if (found := build.existing()) is not None:
        return found
    if not len(split):
        return None, ()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{build.stem}.lock"):
            if (found := build.existing()) is not None:  # another process was faster
                return found
            return build.run(workers or usable_cpus(), progress or SilentProgress())
    except OSError as error:
        raise DatasetError(
            f"Cannot write {build.final}: {error.strerror or error}. What is finished is kept; "
            "make room and run the same command again."
        ) from error


def check_images(
    split: Split, *, name: str, workers: int | None = None, progress: Progress | None = None
) -> tuple[BadImage, ...]:
    """Decode every image of a split, keep nothing, and name those that cannot be read."""
    paths = _paths(split)
    jobs = [
        Job(block, rows.start, paths[rows], None, 0, (1, 1)) for block, rows in enumerate(_blocks(len(split)))
    ]
    bad: list[tuple[int, str]] = []
    with (progress or SilentProgress()).task(f"read {name}", len(split), "images") as task:
        for result in work(jobs, workers or usable_cpus()):
            bad += result.bad
            task.advance(result.count)
    return tuple(BadImage(row, split.records[row].path, reason) for row, reason in sorted(bad))


def verify_pixels(folder: Path, *, progress: Progress | None = None) -> tuple[str, ...]:
    """Read every store in ``folder`` again and give the faults: blocks whose checksum differs.

    A store at fault is taken away, to be built again when it is needed.
    """
    faults = []
    for header_path in sorted(folder.glob("*.json")):
        array_path = header_path.with_suffix(".npy")
        try:
            header = read_json(header_path)
            array = map_array(array_path)
            wrong = _wrong_blocks(array, header["crc32"], array_path.stem, progress or SilentProgress())
        except (OSError, ValueError, KeyError, TypeError) as error:
            faults.append(f"{array_path}: {error}")
        else:
            if not wrong:
                continue
            faults.append(
                f"{array_path}: {len(wrong)} blocks of {BLOCK} images are damaged, first {wrong[0]}"
            )
        header_path.unlink(missing_ok=True)
        array_path.unlink(missing_ok=True)
    return tuple(faults)


def _wrong_blocks(
    array: npt.NDArray[np.uint8], checksums: Sequence[int], title: str, progress: Progress
) -> list[int]:
    wrong = []
    with progress.task(f"verify {title}", len(array), "images") as task:
        for block, rows in enumerate(_blocks(len(array))):
            if block >= len(checksums) or zlib.crc32(array[rows].data) != checksums[block]:
                wrong.append(block)
            task.advance(rows.stop - rows.start)
    return wrong


def _paths(split: Split) -> list[str]:
    root = str(split.root)
    return [f"{root}/{record.path}" for record in split.records]


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


class _Build:
    """One store, from its absence to its file."""

    def __init__(self, split: Split, folder: Path, height: int, width: int, name: str) -> None:
        self.split = split
        self.shape = (len(split), height, width, 3)
        self.stem = f"{name}-{height}x{width}"
        self.final = folder / f"{self.stem}.npy"
        self.header = folder / f"{self.stem}.json"
        self.partial = folder / f"{self.stem}.npy.part"
        self.log = folder / f"{self.stem}.npy.part.log"
        self.paths = _paths(split)
        self.stamps = [stamp(path) for path in self.paths]
        self.fingerprint = self._fingerprint(range(len(split)))

    def _fingerprint(self, rows: Sequence[int]) -> str:
        """Checksum of what the pixels come from: names in order, sizes and times of files, size wanted."""
        digest = hashlib.sha256(f"{_VERSION} {self.shape[1:]}".encode())
        lines = (f"{self.split.records[row].path}\0{self.stamps[row]}\n" for row in rows)
        digest.update("".join(lines).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def existing(self) -> tuple[Pixels, tuple[BadImage, ...]] | None:
        """Open the finished store if it is whole and belongs to the split, or to its readable part."""
        try:
            header = read_json(self.header)
            bad = tuple(BadImage(*item) for item in header["bad"])
            if header["fingerprint"] == self.fingerprint:
                bad = ()
            elif header["whole"] != self.fingerprint:
                return None
            if self.final.stat().st_size != header["bytes"]:
                return None
            array = map_array(self.final)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        fits = array.shape == (len(self.split) - len(bad), *self.shape[1:]) and array.dtype == np.uint8
        return (Pixels(array, self.final), bad) if fits else None

    def run(self, workers: int, progress: Progress) -> tuple[Pixels | None, tuple[BadImage, ...]]:
        """Decode what is not done yet, close the gaps of bad images, and give the file its name."""
        done = self._resume()
        if not done:
            self._start()
            done = self._adopt()
        offset = self.partial.stat().st_size - int(np.prod(self.shape))
        jobs = [
            Job(block, rows.start, self.paths[rows], str(self.partial), offset, self.shape[1:3])
            for block, rows in enumerate(_blocks(len(self.split)))
            if block not in done
        ]
        with progress.task(self.stem, len(self.split), "images") as task, self.log.open("a") as log:
            task.advance(sum(result.count for result in done.values()))
            for result in work(jobs, workers):
                done[result.block] = result
                log.write(json.dumps(list(vars(result).values())) + "\n")
                log.flush()
                task.advance(result.count)
        return self._finish([done[block] for block in sorted(done)])

    def _resume(self) -> dict[int, Result]:
        """Read the log of an interrupted build; blocks count whose bytes are what the log says."""
        try:
            first, *lines = self.log.read_text(encoding="utf-8").splitlines()
            if json.loads(first) != {"fingerprint": self.fingerprint}:
                return {}
            array = map_array(self.partial)
        except (OSError, ValueError):
            return {}
        if array.shape != self.shape or array.dtype != np.uint8:
            return {}
        blocks = list(_blocks(len(self.split)))
        done = {}
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):  # cut off while written
                result = Result(*json.loads(line))
                if zlib.crc32(array[blocks[result.block]].data) == result.checksum:
                    done[result.block] = result
        return done

    def _adopt(self) -> dict[int, Result]:
        """Take over the whole blocks of the finished store, if its images are the first of the split."""
        try:
            header = read_json(self.header)
            old = map_array(self.final)
            kept = len(old) // BLOCK if self.shape[1:] == old.shape[1:] and old.dtype == np.uint8 else 0
            if len(old) > len(self.split) or header["fingerprint"] != self._fingerprint(range(len(old))):
                return {}
            checksums = list(header["crc32"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        new = np.lib.format.open_memmap(self.partial, mode="r+")
        offset = self.partial.stat().st_size - new.nbytes
        del new
        done = {}
        with self.partial.open("r+b") as file, self.log.open("a") as log:
            for block, rows in enumerate(_blocks(kept * BLOCK)):
                pixels = np.ascontiguousarray(old[rows])
                if zlib.crc32(pixels.data) != checksums[block]:
                    continue  # damaged: it is decoded again
                file.seek(offset + rows.start * pixels[0].nbytes)
                file.write(pixels.data)
                done[block] = Result(block, len(pixels), checksums[block], ())
                log.write(json.dumps(list(vars(done[block]).values())) + "\n")
        return done

    def _start(self) -> None:
        size = int(np.prod(self.shape))
        self.log.unlink(missing_ok=True)
        self.partial.unlink(missing_ok=True)
        free = shutil.disk_usage(self.partial.parent).free
        if free < size:
            raise DatasetError(
                f"The pixels of {self.stem} need {size / 1e9:.2f} GB in {self.partial.parent}, and "
                f"{free / 1e9:.2f} GB are free. Make room, choose another --data-root, or a smaller size."
            )
        # Creates the header and a sparse file; blocks are written with pwrite, because a full disk is an
        # error there, and a killed process (SIGBUS) through a memory map.
        np.lib.format.open_memmap(self.partial, mode="w+", dtype=np.uint8, shape=self.shape)
        self.log.write_text(json.dumps({"fingerprint": self.fingerprint}) + "\n", encoding="utf-8")

    def _finish(self, results: list[Result]) -> tuple[Pixels | None, tuple[BadImage, ...]]:
        bad = tuple(
            BadImage(row, self.split.records[row].path, reason)
            for result in results
            for row, reason in result.bad
        )
        checksums = [result.checksum for result in results]
        fingerprint = self.fingerprint
        if bad:
            missing = {item.row for item in bad}
            rows = [row for row in range(len(self.split)) if row not in missing]
            if not rows:
                self.partial.unlink()
                self.log.unlink()
                return None, bad
            fingerprint, checksums = self._fingerprint(rows), _close_gaps(self.partial, rows)
        with self.partial.open("rb") as file:
            os.fsync(file.fileno())
        self.header.unlink(missing_ok=True)  # from here on an old store counts no more
        self.partial.replace(self.final)
        header = {
            "fingerprint": fingerprint,
            "whole": self.fingerprint,
            "bytes": self.final.stat().st_size,
            "crc32": checksums,
            "bad": [[item.row, item.path, item.reason] for item in bad],
        }
        write_json(self.header, header)
        self.log.unlink(missing_ok=True)
        return Pixels(map_array(self.final), self.final), bad


def _close_gaps(path: Path, rows: Sequence[int]) -> list[int]:
    """Move ``rows`` (ascending) to the front of the file, cut off the rest; give the checksums of blocks."""
    array = np.load(path, mmap_mode="r+")
    shape = (len(rows), *array.shape[1:])
    offset = path.stat().st_size - array.nbytes
    for block in _blocks(len(rows)):
        array[block] = array[np.asarray(rows[block])]  # rows only move forward: nothing is overwritten unread
    array.flush()
    checksums = [zlib.crc32(array[block].data) for block in _blocks(len(rows))]
    del array
    with path.open("r+b") as file:
        description = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, description)
        assert file.tell() == offset, "NumPy leaves room for any number of rows in the header"
        file.truncate(offset + int(np.prod(shape)))
    return checksums
