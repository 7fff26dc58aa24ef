"""The commands of the page on pairs, typed as they stand, on small data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from test_typed_commands import ROOT, commands, home, type_in

__all__ = ["home"]


def test_review(home: Path, tiny_root: Path) -> None:
    [crops] = (tiny_root / "tiny").glob("rendered-*/query")
    shutil.copytree(crops, home / "crops")
    lines = [line for line in commands((ROOT / "docs" / "review.md").read_text()) if line.startswith("icsr ")]
    small = r"\1 --identities 6 --images 3 --cameras 3 --size 32x16"
    type_in([re.sub(r"^(icsr prepare synthetic.*)$", small, line) for line in lines])
    assert 'class="question"' in (home / "review.html").read_text()
    assert (
        'class="question"' in (home / "next.html").read_text()
        or "nothing to ask" in (home / "next.html").read_text()
    )
    assert (home / "answers.csv").read_text().startswith("first,second,answer\n")
    assert (home / "runs/synthetic/global/second/pairs.csv").is_file()
    assert (home / "assigned.csv").read_text().startswith("path,cluster,nearest,distance\n")
