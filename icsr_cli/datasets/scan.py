"""Find image files and folders without opening anything."""

import os
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from icsr_cli.errors import DatasetError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image's; resource forks of macOS (``._x.jpg``) do not count."""
    return ("." + name.rpartition(".")[2].lower()) in IMAGE_SUFFIXES and not name.startswith("._")


def image_files(folder: Path, *, recursive: bool = False) -> list[str]:
    """Give the image files under ``folder``: POSIX paths relative to it, sorted.

    A link counts as an image even where it leads nowhere, and a pipe too: they are named later, not lost.
    Raises DatasetError where the folder cannot be listed.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise error

    try:
        for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
            if not _is_new(place, seen):  # links may form a ring
                folders.clear()
                continue
            folders[:] = filter(_is_entered, folders) if recursive else ()
            prefix = "" if place == str(folder) else f"{Path(place).relative_to(folder).as_posix()}/"
            found += [prefix + name for name in names if is_image_name(name)]
    except OSError as error:
        raise DatasetError(f"Cannot list the folder {error.filename}: {error.strerror}.") from error
    return sorted(found)


def _is_entered(name: str) -> bool:
    """Whether a folder of that name may hold images of a data set."""
    return name != "__MACOSX" and not name.startswith(".")


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
        for _, inner, _ in islice(os.walk(folder), 1):  # one that cannot be listed has none
            queue.extend(folder / name for name in sorted(filter(_is_entered, inner)))
    return None
