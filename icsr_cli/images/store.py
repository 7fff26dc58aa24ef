"""The pixel store: every image decoded once, resized once, kept in one memory-mapped file.

A raw store is ``<part>-<height>x<width>.npy``, uint8 (any reader of NumPy's format opens it); one of JPEGs is
described in ``compressed``. Written after it comes a JSON file with its fingerprint and the checksums of its
blocks. While it is built it is called ``*.part``; blocks that are done are noted in ``*.part.log``, and an
interrupted build goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from icsr_cli.errors import DatasetError, InputError, reason, room
from icsr_cli.files import map_array, parse_json, read_bytes, read_json, stamp, write_json
from icsr_cli.images.blocks import Job, Kept, Result, work
from icsr_cli.images.compressed import JpegForm
from icsr_cli.progress import Progress
from icsr_cli.threads import usable_cpus
from icsr_cli.types import IntArray, PixelArray, Split

if TYPE_CHECKING:
    from icsr_cli.pixels import Stored

Shape: TypeAlias = "tuple[int, int, int, int]"

#: Images per block: the unit of parallel work, of the log, and of the checksums.
BLOCK = 256
#: Part of the fingerprint; to be changed with anything that changes pixels.
_VERSION = "1: Pillow bicubic, RGB, over white, EXIF orientation"


def _keep(path: Path, offset: int, start: int, pixels: PixelArray, bad: Iterable[int]) -> Kept:
    """Write a block where it belongs in the array of an ``.npy`` file, which starts at byte ``offset``."""
    _write_at(path, offset + start * pixels[0].nbytes, pixels.data.cast("B"))
    return zlib.crc32(pixels.data), (), b""


class RawForm:
    """What is particular to a store of plain pixels; ``path`` is that of its images, finished or not.

    ``version``: part of the fingerprint, to be changed with anything that changes what is kept.
    """

    mark, suffix, version = "", ".npy", ""

    def files(self, path: Path) -> tuple[Path, ...]:
        """Give all files of a store but its header."""
        return (path,)

    def least(self, shape: Shape) -> int:
        """Give the bytes that it takes at least."""
        return int(np.prod(shape))

    def begin(self, path: Path, shape: Shape) -> None:
        """Make the file that blocks go into: its header, and room.

        Blocks are written with pwrite, because a full disk is an error there, and a killed process (SIGBUS)
        through a memory map.
        """
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

    def keeper(self, path: Path, shape: Shape) -> Callable[..., Kept]:
        """Give what keeps a block in the process that has decoded it, for ``Job.keep``; it is pickled."""
        return partial(_keep, path, path.stat().st_size - self.least(shape))

    def append(self, path: Path, shape: Shape, start: int, result: Result) -> None:
        """Write the bytes of a block, the first row of which is ``start``, if the result brings any."""
        if result.data:
            offset = path.stat().st_size - self.least(shape) + start * self.least((1, *shape[1:]))
            _write_at(path, offset, memoryview(result.data))

    def held(self, path: Path, shape: Shape, results: Iterable[Result]) -> list[Result]:
        """Give those of the blocks, in the order they were written, whose bytes are there."""
        array = map_array(path)
        if array.shape != shape or array.dtype != np.uint8:
            return []
        blocks = dict(enumerate(_blocks(len(array))))
        sound = (r for r in results if zlib.crc32(array[blocks[r.block]].data) == r.checksum)
        return [*{result.block: result for result in sound}.values()]

    def close(
        self, path: Path, shape: Shape, results: Sequence[Result], missing: Sequence[int]
    ) -> tuple[list[int], dict[str, Any]]:
        """Leave out the ``missing`` rows; give the checksums of blocks, and what else the header holds."""
        if not missing:
            return [result.checksum for result in results], {}
        return _close_gaps(path, np.delete(np.arange(shape[0]), missing)), {}

    def open(self, path: Path, header: dict[str, Any], names: Sequence[str]) -> npt.NDArray[Any]:
        """Open a store; raises OSError, ValueError, KeyError or TypeError where it is not whole."""
        array = map_array(path)
        if array.dtype != np.uint8 or array.ndim != 4:
            raise ValueError(f"{path} holds no pixels")
        return array

    def block(self, pixels: Any, rows: slice) -> tuple[npt.NDArray[np.uint8], Sequence[int]]:
        """Give the bytes of neighbouring rows of an open store, and what ``Result.lengths`` says of them."""
        return pixels[rows], ()


Form: TypeAlias = RawForm | JpegForm
FORMS: Final[dict[str, Form]] = {"raw": RawForm(), "jpeg": JpegForm()}
Store: TypeAlias = Literal["raw", "jpeg"]


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read: its row in the split, its path in the record, and why."""

    row: int
    path: str
    reason: str


def open_pixels(split: Split, folder: Path, height: int, width: int, *, name: str, **how: Any) -> Stored:
    """Open the store of a split, building it where there is none or the source has changed.

    Gives uint8 (n, height, width, 3), RGB, read-only, in the order of the records: a mapped array, or
    ``compressed.Jpegs``, which decodes the rows that it is asked for. Arguments as of ``build_pixels``.

    Raises DatasetError where an image cannot be read or the disk is full; InputError for a size below 1
    or another form of store.
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
    store: Store = "raw",
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Stored | None, tuple[BadImage, ...]]:
    """Open or build as ``open_pixels`` does, but leave out the images that cannot be read and name them.

    The store then holds the split without them, and is None where nothing is left. ``folder`` holds the
    stores of the data set, ``name`` is the part (``train``, ``query``, ...), ``store`` the form: ``raw``
    pixels, or ``jpeg``, a fraction of the room, decoded at every use (see ``compressed``). ``workers`` counts
    processes (default: the CPUs this process may use). From a script, guard the call with
    ``if __name__ == "__main__"``: the processes import the script.
    """
    if height < 1 or width < 1:
        raise InputError(f"An image of height {height} and width {width} was asked for; both start at 1.")
    if store not in FORMS:
        raise InputError(f"store: {store!r} is not one of {', '.join(FORMS)}.")
    build = _Build(split, folder, height, width, name, FORMS[store])
    if (found := build.existing()) is not None:
        return found
    if not len(split):
        return None, ()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{build.title}.lock"):
            if (found := build.existing()) is not None:  # another process was faster
                return found
            progress = progress or Progress()
            others = sorted({path.stem for path in folder.glob(f"{name}-*x*.json")} - {build.title})
            if others:
                progress.note(
                    f"Pixels of this data set are here as {', '.join(others)}; {build.title} is made now."
                )
            return build.run(workers or usable_cpus(), progress)
    except OSError as error:
        refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        way = "take a size that is there, or ask the folder's owner" if refused else "make room"
        raise DatasetError(
            f"Cannot write {build.final}: {error.strerror or error}. What is finished is kept; "
            f"{way} and run the same command again."
        ) from error


def check_images(
    split: Split, *, name: str, workers: int | None = None, progress: Progress | None = None
) -> tuple[BadImage, ...]:
    """Decode every image of a split, keep nothing, and name those that cannot be read."""
    paths = _paths(split)
    jobs = [Job(block, rows.start, paths[rows], (1, 1)) for block, rows in enumerate(_blocks(len(split)))]
    bad: list[tuple[int, str]] = []
    with (progress or Progress()).task(f"read {name}", len(split), "images") as task:
        for result in work(jobs, workers or usable_cpus()):
            bad += result.bad
            task.advance(result.count)
    return tuple(BadImage(row, split.records[row].path, reason) for row, reason in sorted(bad))


def other_files(split: Split, folder: Path, height: int, width: int, *, name: str, store: Store) -> bool:
    """Whether a store of the split is there, and of other files than now, by names, sizes and times."""
    build = _Build(split, folder, height, width, name, FORMS[store])
    try:
        header = read_json(build.header)
        return build.fingerprint not in (header["fingerprint"], header["whole"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def verify_pixels(folder: Path, *, progress: Progress | None = None) -> tuple[str, ...]:
    """Read every store in ``folder`` again and give the faults: blocks whose checksum differs.

    A store at fault is taken away, to be built again when it is needed.
    """
    faults = []
    for header_path in sorted(folder.glob("*.json")):
        form = FORMS["jpeg" if header_path.stem.endswith(JpegForm.mark) else "raw"]
        path = header_path.with_name(header_path.stem + form.suffix)
        try:
            header = read_json(header_path)
            pixels = form.open(path, header, ())
            wrong = _wrong_blocks(form, pixels, header["crc32"], header_path.stem, progress or Progress())
        except (OSError, ValueError, KeyError, TypeError) as error:
            faults.append(f"{path}: {reason(error)}")
        else:
            if not wrong:
                continue
            faults.append(f"{path}: {len(wrong)} blocks of {BLOCK} images are damaged, first {wrong[0]}")
        for file in (header_path, *form.files(path)):
            file.unlink(missing_ok=True)
    return tuple(faults)


def _wrong_blocks(
    form: Form, pixels: Any, checksums: Sequence[int], title: str, progress: Progress
) -> list[int]:
    wrong = []
    with progress.task(f"verify {title}", len(pixels), "images") as task:
        for block, rows in enumerate(_blocks(len(pixels))):
            if block >= len(checksums) or zlib.crc32(form.block(pixels, rows)[0].data) != checksums[block]:
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

    def __init__(self, split: Split, folder: Path, height: int, width: int, name: str, form: Form) -> None:
        self.split, self.form = split, form
        self.shape: Shape = (len(split), height, width, 3)
        self.title = f"{name}-{height}x{width}{form.mark}"
        self.final = folder / f"{self.title}{form.suffix}"
        self.header = folder / f"{self.title}.json"
        self.partial = folder / f"{self.final.name}.part"
        self.log = folder / f"{self.partial.name}.log"
        self.paths = _paths(split)
        self.stamps = [stamp(path) for path in self.paths]
        self.fingerprint = self._fingerprint(range(len(split)))

    def _fingerprint(self, rows: Sequence[int]) -> str:
        """Checksum of what the pixels come from: names in order, sizes and times of files, size wanted."""
        digest = hashlib.sha256(f"{_VERSION} {self.shape[1:]}{self.form.version}".encode())
        lines = (f"{self.split.records[row].path}\0{self.stamps[row]}\n" for row in rows)
        digest.update("".join(lines).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def existing(self) -> tuple[Stored, tuple[BadImage, ...]] | None:
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
            array = self.form.open(self.final, header, self._names({item.row for item in bad}))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        fits = array.shape == (len(self.split) - len(bad), *self.shape[1:])
        return (array, bad) if fits else None

    def _names(self, bad: Collection[int]) -> list[str]:
        return [record.path for row, record in enumerate(self.split.records) if row not in bad]

    def run(self, workers: int, progress: Progress) -> tuple[Stored | None, tuple[BadImage, ...]]:
        """Decode what is not done yet, leave out bad images, and give the files their names."""
        results = self._resume()
        if not results:
            self._start()
            results = self._adopt()
        done = {result.block for result in results}
        keep = self.form.keeper(self.partial, self.shape)
        jobs = [
            Job(block, rows.start, self.paths[rows], self.shape[1:3], keep)
            for block, rows in enumerate(_blocks(len(self.split)))
            if block not in done
        ]
        with progress.task(self.title, len(self.split), "images") as task, self.log.open("w") as log:
            log.writelines([json.dumps({"fingerprint": self.fingerprint}) + "\n", *map(_line, results)])
            log.flush()
            task.advance(sum(result.count for result in results))
            for result in work(jobs, workers):
                results.append(self._kept(result))
                log.write(_line(result))
                log.flush()
                task.advance(result.count)
        return self._finish(sorted(results, key=lambda result: result.block))

    def _kept(self, result: Result) -> Result:
        """Write the bytes that a result brings, and give it without them."""
        self.form.append(self.partial, self.shape, result.block * BLOCK, result)
        return replace(result, data=b"")

    def _resume(self) -> list[Result]:
        """Read the log of an interrupted build; blocks count whose bytes are what the log says."""
        found = []
        try:
            first, *lines = read_bytes(self.log).decode("utf-8").splitlines()
            if parse_json(first) != {"fingerprint": self.fingerprint}:
                return []
            for line in lines:
                with contextlib.suppress(ValueError, TypeError):  # cut off while written
                    found.append(Result(*parse_json(line)))
            return self.form.held(self.partial, self.shape, found)
        except (OSError, ValueError, TypeError, LookupError):
            return []

    def _adopt(self) -> list[Result]:
        """Take over whole blocks of the finished store, if its images are the first of the split."""
        found: list[Result] = []
        try:
            header = read_json(self.header)
            old = self.form.open(self.final, header, ())
            kept = len(old) // BLOCK * BLOCK if self.shape[1:] == old.shape[1:] else 0
            if len(old) > len(self.split) or header["fingerprint"] != self._fingerprint(range(len(old))):
                return []
            checksums = list(header["crc32"])
        except (OSError, ValueError, KeyError, TypeError):
            return []
        for checksum, (block, rows) in zip(checksums, enumerate(_blocks(kept)), strict=False):
            data, lengths = self.form.block(old, rows)
            if zlib.crc32(data.data) != checksum:
                break  # damaged: from here on it is decoded again
            taken = Result(block, rows.stop - rows.start, checksum, (), lengths, data.tobytes())
            found.append(self._kept(taken))
        return found

    def _start(self) -> None:
        size = self.form.least(self.shape)
        for file in (self.log, *self.form.files(self.partial)):
            file.unlink(missing_ok=True)
        free = shutil.disk_usage(self.partial.parent).free
        if free < size:
            least = "at least " if self.form.mark else ""
            raise DatasetError(
                f"The pixels of {self.title} need {least}{room(size)} in {self.partial.parent}, and "
                f"{room(free)} are free. Make room, choose another --data-root, or a smaller size."
            )
        self.form.begin(self.partial, self.shape)

    def _finish(self, results: list[Result]) -> tuple[Stored | None, tuple[BadImage, ...]]:
        bad = tuple(
            BadImage(row, self.split.records[row].path, reason)
            for result in results
            for row, reason in result.bad
        )
        missing = {item.row for item in bad}
        rows = [row for row in range(len(self.split)) if row not in missing]
        files = self.form.files(self.partial)
        if not rows:
            for file in (self.log, *files):
                file.unlink(missing_ok=True)
            return None, bad
        checksums, facts = self.form.close(self.partial, self.shape, results, sorted(missing))
        for file in files:
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        self.header.unlink(missing_ok=True)  # from here on an old store counts no more
        for file, final in zip(files, self.form.files(self.final), strict=True):
            file.replace(final)
        header = {
            "fingerprint": self._fingerprint(rows) if bad else self.fingerprint,
            "whole": self.fingerprint,
            "bytes": self.final.stat().st_size,
            "crc32": checksums,
            "bad": [[item.row, item.path, item.reason] for item in bad],
            **facts,
        }
        write_json(self.header, header)
        self.log.unlink(missing_ok=True)
        return self.form.open(self.final, header, self._names(missing)), bad


def _line(result: Result) -> str:
    """Give a finished block as a line of the log."""
    return json.dumps([*vars(result).values()][:-1]) + "\n"  # its bytes are in the file


def _write_at(path: Path, offset: int, view: memoryview) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(view)


def _close_gaps(path: Path, rows: IntArray) -> list[int]:
    """Move ``rows`` (ascending) to the front of the file, cut off the rest; give the checksums of blocks."""
    array = np.load(path, mmap_mode="r+")
    shape = (len(rows), *array.shape[1:])
    offset = path.stat().st_size - array.nbytes
    for block in _blocks(len(rows)):
        array[block] = array[rows[block]]  # rows only move forward: nothing is overwritten unread
    array.flush()
    checksums = [zlib.crc32(array[block].data) for block in _blocks(len(rows))]
    del array
    with path.open("r+b") as file:
        description = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, description)
        assert file.tell() == offset, "NumPy leaves room for any number of rows in the header"
        file.truncate(offset + int(np.prod(shape)))
    return checksums
