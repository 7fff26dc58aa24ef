"""Files and folders that are there whole or not at all."""

import csv
import errno
import hashlib
import io
import json
import mmap
import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from icsr_cli.errors import IcsrError, reason
from icsr_cli.types import IntArray

#: The last record of a zip, with the longest comment.
_LONGEST_END = 22 + (1 << 16)


def checksum(path: Path) -> str | None:
    """Give the SHA-256 of a file, in hexadecimal digits; None where it is gone or cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def stamp(path: str | Path) -> str:
    """Give size and time of last change of a file, by which it is known again; ``missing`` without one."""
    try:
        found = os.stat(path)  # noqa: PTH116 - called for every image of every split, Path is slower
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is flushed to the disk and renamed.

    A reader sees the old file or the new one, never a part; after a fault the old one is intact. What a
    process that was killed at this left beside ``path`` goes away at the next write. The folder is made where
    there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove_orphans(path)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # nobody has heard of that name
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # a name too long to be made is too long to be removed
            temporary.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside ``path``; on success it is renamed, after a fault nothing is left of it.

    ``path`` must not be there, or be empty. A process that is killed leaves ``.NAME.PROCESS.tmp``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all; what of a file's name is no UTF-8 as it is shown, escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document whole or not at all; ASCII, as names of files need not be UTF-8."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    """Give the rows of a table as CSV; names of files need not be UTF-8, and come back as they were."""
    rows, stream = list(rows), io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    if "\r" in stream.getvalue():  # a field with one is not quoted where lines end otherwise
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogateescape")


def check_header(path: Path, columns: Iterable[str], fault: type[IcsrError]) -> None:
    """Raise ``fault`` where a table names a column twice: one of them would be forgotten."""
    for name, count in Counter(filter(None, columns)).most_common(1):
        if count > 1:
            raise fault(f"{path} has {count} columns {name!r}. Leave one of them.")


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write bytes whole or not at all."""
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)  # Path.write_bytes would keep a view of it while a fault is told


def regular(path: Path) -> Path:
    """Give the path of a file, where it is one: a pipe would be waited for, a device may have no end.

    For files of our own; what the user names may be a pipe. Raises OSError for anything else.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, not a file", str(path))
    return path


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Read a file of our own, as ``regular`` says. Raises OSError; ValueError where it has more bytes."""
    size = regular(path).stat().st_size
    if most is not None and size > most:
        raise ValueError(f"it is longer than {most:,} bytes")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Read one JSON document.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8, no JSON, or nested too deeply.
    """
    return parse_json(read_bytes(path).decode("utf-8"))


def parse_json(text: str | bytes) -> Any:
    """Give what one JSON document holds, which may be anybody's.

    Raises:
        ValueError: it is no JSON, or nested deeper than any text of ours.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def map_array(path: Path) -> npt.NDArray[Any]:
    """Map the array of an ``.npy`` file into memory.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no array of numbers, or damaged.
    """
    with regular(path).open("rb") as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            raise ValueError(f"{path} is not an .npy file")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy raises many kinds for a damaged header
        raise ValueError(f"{path} cannot be read as an .npy: {reason(error)}") from None


def announce(mapped: npt.NDArray[Any], starts: IntArray, stops: IntArray) -> None:
    """Ask the system for all that will be read next of a mapped file: its bytes from each start to stop.

    It then reads these and no others, in the order that suits the disk, while nobody waits. Without it
    each page is waited for alone, and most of what is read lies around those asked for. Where an array is no
    map, or the system takes no advice, nothing happens. ``starts``, ``stops`` int64 (s,), from the array's
    first byte; no two overlap unless they are the same.
    """
    held: Any = mapped.base
    if not (isinstance(held, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED")) or not len(starts):
        return
    offset = getattr(mapped, "offset", 0) % mmap.ALLOCATIONGRANULARITY
    order = np.argsort(starts)
    first, last = starts[order] + offset, stops[order] + offset
    apart = first[1:] > last[:-1]
    first = first[np.append(True, apart)] // mmap.PAGESIZE * mmap.PAGESIZE
    held.madvise(mmap.MADV_RANDOM)
    for start, stop in zip(first.tolist(), last[np.append(apart, True)].tolist(), strict=True):
        held.madvise(mmap.MADV_WILLNEED, start, stop - start)


def read_arrays(path: Path, fault: type[IcsrError], wanted: Container[str] | None = None) -> dict[str, Any]:
    """Read the arrays of an ``.npz``, to their checksums; in the place of those not ``wanted`` is None.

    Raises ``fault`` where it is no ``.npz`` of plain arrays, names one twice, or is damaged.
    """
    if not zipfile.is_zipfile(path):
        raise fault(
            f"{path} is not an .npz file. numpy.savez(PATH, NAME=array, ...) makes one; of features, so does "
            "icsr embed ... --out FILE.npz."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            check_zip_list(archive.zip)
            for member in archive.zip.infolist():  # a name whose two copies differ is refused
                archive.zip.open(member).close()
            if twice := [name for name, count in Counter(archive.files).items() if count > 1]:
                raise ValueError(f"{twice[0]} is there twice")
            read = [name for name in archive.files if wanted is None or name in wanted]
            arrays = {name: _plain(archive, name) for name in read}
        if strange := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise TypeError(f"{strange[0]} is no array")
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise fault(f"{path} cannot be read as an .npz of plain arrays: {reason(error)}.") from None
    return dict.fromkeys(archive.files) | arrays


def _plain(archive: Any, name: str) -> Any:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(f"{name} holds Python objects; save numbers, or text by .astype(str)") from None


def check_zip_list(opened: zipfile.ZipFile) -> None:
    """Hold the members against their number in the last record: the list itself has no checksum.

    Raises BadZipFile where members are missing.
    """
    file, found = cast("IO[bytes]", opened.fp), len(opened.infolist())
    file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_END))
    end = file.read()
    said = int.from_bytes(end[end.rindex(b"PK\x05\x06") + 10 :][:2], "little")
    if said not in (found, 0xFFFF):  # beyond that a zip64 record counts
        raise zipfile.BadZipFile(f"{found} members instead of {said}")


def check_zip(path: Path) -> None:
    """Hold every member of a zip, which PyTorch's files are, against its checksum; other files pass.

    Raises ValueError where one does not fit.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as opened:
            check_zip_list(opened)
            wrong = opened.testzip()
    except Exception as error:  # zipfile raises many kinds for a damaged file
        raise ValueError(reason(error)) from None
    if wrong is not None:
        raise ValueError(f"the checksum of {wrong} does not fit")


def _remove_orphans(path: Path) -> None:
    """Remove temporaries of ``path`` whose process is no more; those of a living one are its own."""
    if os.name != "posix":  # elsewhere a file that is open cannot be removed
        return
    import psutil

    name = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}})\.tmp")
    for entry in path.parent.iterdir():
        if (found := name.fullmatch(entry.name)) and not psutil.pid_exists(int(found[1])):
            with suppress(OSError):  # gone, or another user's, and in nobody's way
                entry.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # a folder cannot be opened elsewhere
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
