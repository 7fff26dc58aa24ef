"""Text, JSON and other files, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from icsr_cli import files


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path as ``icsr_cli.files.whole_file`` does; the folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(path) as temporary:
        yield temporary


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
