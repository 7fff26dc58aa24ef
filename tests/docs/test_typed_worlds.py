"""The commands of the page of synthetic worlds, typed as they stand, with fewer people."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from test_typed_commands import LESS, ROOT, commands, home, type_in

__all__ = ["home"]


def test_the_worlds_of_the_page(home: Path) -> None:
    page = (ROOT / "docs" / "synthetic.md").read_text(encoding="utf-8")
    lines = [line for line in commands(page) if line.startswith("icsr ")]
    assert len(lines) == 5
    for pattern, less in LESS:
        lines = [re.sub(pattern, less, line) for line in lines]
    type_in(lines)
    people = {}
    for name in ("separate", "metro", "street", "tracks"):
        with (home / "data" / name / "index.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
        people[name] = [int(row["identity"]) for row in rows]
        assert {int(row["track"]) >= 0 for row in rows if int(row["identity"]) >= 0} == {True}
    assert {name for name, found in people.items() if -1 in found} == {"metro", "street"}
    [metrics] = home.glob("runs/separate/global/*/metrics.jsonl")
    assert '"camera_effect"' in metrics.read_text()
