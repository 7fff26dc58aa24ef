"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make the file under a temporary name, then put it in place."""
    with whole_file(path) as temporary:
        write(temporary)


def _remove_orphans(path: Path) -> None:
    """Remove temporaries of ``path`` whose process is no more; those of a living one are its own."""
    if os.name != "posix":  # elsewhere nobody can ask whether a process lives
        return
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}})\.tmp")
    for entry in path.parent.iterdir():
        if (found := name.fullmatch(entry.name)) and not _lives(int(found[1])):
            entry.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is somebody else's
        return True
    return True


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # a folder cannot be opened elsewhere
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
