"""Pages, found by their files: ``pages/NAME.py`` holds a page and ``pages/NAME.html`` its template.

The function ``page(view) -> str`` of such a file gives the whole page as HTML (see
``icsr_cli.reports.view.View``); ``icsr report --page NAME`` writes it. A new page is these two files.
It names in ``TAKES`` which of ``rankings``, ``draw_map``, ``seed``, ``device`` and ``dataset`` it makes
use of; the last is refused only beside named runs, else it says whose newest run is meant.
"""

import importlib
import re
from pathlib import Path
from typing import Any

from icsr_cli.errors import UsageError


def available() -> tuple[str, ...]:
    """Name the pages that ``icsr report`` can write, sorted; no file is loaded."""
    files = (file for folder in __path__ for file in Path(folder).glob("*.py"))
    found = (file for file in files if re.search(r"^def page\(", file.read_text("utf-8"), re.M))
    return tuple(sorted(file.stem for file in found))


def find(name: str) -> Any:
    """Load the file of a page by its name. Raises UsageError where there is none."""
    if name not in available():
        raise UsageError(f"There is no page {name!r}; there are {', '.join(available())}.")
    return importlib.import_module(f"{__name__}.{name}")
