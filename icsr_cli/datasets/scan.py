"""Find image files and folders without opening anything."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from icsr_cli.errors import DatasetError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
#: Folders that no data set keeps images in.
_IGNORED_FOLDERS = frozenset({"__MACOSX"})


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image's; resource forks of macOS (``._x.jpg``) do not count."""
    return ("." + name.rpartition(".")[2].lower()) in IMAGE_SUFFIXES and not name.startswith("._")


def image_files(folder: Path, *, recursive: bool = False) -> list[str]:
    """Give the image files under ``folder``: POSIX paths relative to it, sorted.

    A link counts as an image even where it leads nowhere, and a pipe too: they are named later, not lost.
    Raises DatasetError where the folder cannot be listed.
    """
    return sorted(_walk(str(folder), "", recursive, set()))


def _walk(folder: str, prefix: str, recursive: bool, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Links to folders are followed, but no folder is entered twice: links may form a ring."""
    try:
        if not _is_new(folder, seen):
            return
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DatasetError(f"Cannot list the folder {folder}: {error.strerror}.") from error
    for entry in entries:
        if _is_folder(entry):
            if recursive and _is_entered(entry):
                yield from _walk(entry.path, f"{prefix}{entry.name}/", recursive, seen)
        elif is_image_name(entry.name):
            yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_entered(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one, that may hold images."""
    return _is_folder(entry) and entry.name not in _IGNORED_FOLDERS and not entry.name.startswith(".")


def _is_new(folder: str | Path, seen: set[tuple[int, int]]) -> bool:
    found = Path(folder).stat()
    key = (found.st_dev, found.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def find_folder(start: Path, wanted: Callable[[Path], bool]) -> Path | None:
    """Give the first folder at or below ``start``, nearest first, for which ``wanted`` holds.

    Looks at most at 20,000 folders, and at none twice.
    """
    queue, seen = deque([start]), set[tuple[int, int]]()
    while queue and len(seen) < 20_000:
        folder = queue.popleft()
        if not folder.is_dir() or not _is_new(folder, seen):
            continue
        if wanted(folder):
            return folder
        with suppress(OSError), os.scandir(folder) as entries:  # one that cannot be listed has none
            queue.extend(sorted(folder / entry.name for entry in entries if _is_entered(entry)))
    return None
