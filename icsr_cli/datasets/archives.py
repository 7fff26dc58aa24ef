"""Unpack a downloaded archive: all of it, inside the folder it was meant for, or nothing at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from icsr_cli import files
from icsr_cli.errors import DatasetError, IcsrError, reason, room
from icsr_cli.progress import Progress

_COPY = 1 << 20
#: What an archive may hold: so many times its size, and so many bytes more.
EXPANSION = 100
_SLACK = 100_000_000
#: What a member counts at least, in bytes: an empty file, or a folder, takes room as well.
_LEAST = 512
_COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    **dict.fromkeys(_COMPRESSED, "tar"),
    b"Rar!": "rar",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
#: Headers whose content is read at once: long names, and tables of pax.
_IN_MEMORY = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
              tarfile.SOLARIS_XHDTYPE)  # fmt: skip


def unpack(
    archive: Path, target: Path, *, expansion: int = EXPANSION, progress: Progress | None = None
) -> Path:
    """Unpack a zip, tar, tar.gz, tar.bz2 or tar.xz into the new folder ``target``, and give it.

    Members that lead out of the folder (``..``, absolute), links, devices, names that come twice, and what
    holds more than ``expansion`` times its size and 100 MB (a bomb; a member counts 512 bytes at least) are
    refused. It is unpacked into a folder beside and renamed at the end: on any fault nothing is left.
    Raises DatasetError.
    """
    kind = _kind(archive)
    if kind not in ("zip", "tar"):
        what = "is no archive" if kind is None else f"is a {kind} archive, which cannot be opened here"
        raise DatasetError(
            f"{archive} {what}. Expected: zip, tar, tar.gz, tar.bz2, tar.xz. Unpack it with its own "
            "program and give the folder to --source."
        )
    opened = _unpack_zip if kind == "zip" else _unpack_tar
    try:
        with files.whole_folder(target) as temporary:
            opened(archive, temporary, expansion, progress or Progress())
    except (IcsrError, MemoryError):
        raise
    except Exception as error:  # these libraries raise nearly any kind on a damaged file
        if isinstance(error, OSError) and error.errno:
            raise DatasetError(
                f"Cannot unpack {archive} into {target.parent}: {error.strerror}. Nothing was kept of it."
            ) from error
        raise DatasetError(
            f"{archive} is truncated or damaged ({reason(error)}). Download it again; nothing was kept of it."
        ) from error
    return target


def _kind(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(512)
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    return "tar" if start[257:262] == b"ustar" else None


def _unpack_zip(archive: Path, folder: Path, expansion: int, progress: Progress) -> None:
    with zipfile.ZipFile(archive) as opened:
        files.check_zip_list(opened)
        members = [member for member in opened.infolist() if not _skipped(member.filename)]
        known: dict[PurePosixPath, bool] = {}
        paths = [_checked_path(archive, one.filename, one.is_dir(), known) for one in members]
        for member in members:
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(archive, member.filename, "it is a link or a device")
            if member.flag_bits & 0x1:
                raise _refusal(archive, member.filename, "it is encrypted: unpack it yourself")
        total = sum(member.file_size for member in members)
        _check_size(archive, sum(max(member.file_size, _LEAST) for member in opened.infolist()), expansion)
        _check_room(archive, folder, total)
        with progress.task(f"unpack {archive.name}", len(members), "files") as task:
            for member, path in zip(members, paths, strict=True):
                if member.is_dir():
                    (folder / path).mkdir(parents=True, exist_ok=True)
                else:
                    with opened.open(member) as content:
                        _write(content, folder / path, member.file_size)
                task.advance()


class _StrictTarInfo(tarfile.TarInfo):
    """A header reader that takes a missing or broken header for damage, not for the end of the archive.

    A size below 0 would lead backwards, and a name or a table of more than a megabyte into memory.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictTarInfo:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in _IN_MEMORY and found.size > _COPY):
            raise tarfile.InvalidHeaderError(f"a size of {found.size}")  # type: ignore[attr-defined]
        return found

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # the block of zeros with which an archive ends
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no header at byte {archive.offset}: {error}") from error


def _unpack_tar(archive: Path, folder: Path, expansion: int, progress: Progress) -> None:
    known: dict[PurePosixPath, bool] = {}
    with (
        archive.open("rb") as raw,
        _decompressed(raw) as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictTarInfo) as opened,
        progress.task(f"unpack {archive.name}", archive.stat().st_size, "B") as task,
    ):
        position, total = 0, 0
        for member in opened:
            if member.size < 0 or opened.offset < member.offset_data:
                raise tarfile.ReadError(f"a size of {member.size}")
            total += max(member.size, _LEAST)
            _check_size(archive, total, expansion)
            if _skipped(member.name):
                continue
            path = _checked_path(archive, member.name, member.isdir(), known)
            if member.isdir():
                (folder / path).mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                content = opened.extractfile(member)
                assert content is not None
                _check_room(archive, folder, member.size)
                _write(content, folder / path, member.size)
            else:
                raise _refusal(archive, member.name, "it is a link or a device")
            task.advance(raw.tell() - position)
            position = raw.tell()
        for _ in _pieces(stream):  # to its end, where the checksum is
            pass


def _decompressed(raw: IO[bytes]) -> Any:
    """Give what is inside a compressed stream; its checksum is looked at where it ends."""
    start = raw.read(8)
    raw.seek(0)
    for magic, opened in _COMPRESSED.items():
        if start.startswith(magic):
            return opened(raw, "rb")
    return raw


def _skipped(name: str) -> bool:
    return name.split("/")[0] == "__MACOSX"


def _checked_path(archive: Path, name: str, folder: bool, known: dict[PurePosixPath, bool]) -> PurePosixPath:
    """Give the safe relative path of a member, or raise DatasetError.

    It is added to the ``known`` ones, each with whether it is a folder: that may come twice.
    """
    plain = name.replace("\\", "/")
    path = PurePosixPath(plain)
    if path.is_absolute() or plain[1:2] == ":" or ".." in path.parts or "\0" in plain:
        raise _refusal(archive, name, "it leads out of the folder")
    if path == PurePosixPath("."):
        return path
    if path in known and not (folder and known[path]):
        raise _refusal(archive, name, "the name comes twice")
    known[path] = folder
    return path


def _refusal(archive: Path, name: str, why: str) -> DatasetError:
    return DatasetError(
        f"{archive} is refused for its member {name!r}: {why}. A data set is folders and image files; "
        "nothing was unpacked. Get the archive from its authors."
    )


def _check_size(archive: Path, total: int, expansion: int) -> None:
    """Refuse an archive that holds far more than pictures could: a bomb."""
    if total > _SLACK + expansion * archive.stat().st_size:
        raise DatasetError(
            f"{archive} holds more than {expansion} times its size: pictures do not shrink like that. "
            "Nothing was kept of it. If it is what it should be, allow it more with --expansion N."
        )


def _check_room(archive: Path, folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DatasetError(
            f"{archive} needs {room(size)} more in {folder.parent}, and {room(free)} are free. "
            "Make room or choose another --data-root; nothing was kept."
        )


def _write(content: IO[bytes], path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file:
        for piece in _pieces(content):
            written += len(piece)
            if written > size:  # a bomb says less than it holds
                raise tarfile.ReadError(f"{path.name} is larger than its header says")
            file.write(piece)
    if written != size:
        raise tarfile.ReadError(f"{path.name} has {written} of {size} bytes")


def _pieces(content: IO[bytes]) -> Iterator[bytes]:
    while piece := content.read(_COPY):
        yield piece


def stamp(archive: Path) -> str:
    """Give a short name for the state of an archive: it changes when the file does."""
    text = f"{os.path.abspath(archive)} {files.stamp(archive)}"  # noqa: PTH100 - links stay
    return f"{zlib.crc32(text.encode('utf-8', 'surrogateescape')):08x}"
