"""Two runs are the same: labels, weights, checkpoints, and metrics but for seconds, bit for bit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def timeless(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def assert_same_values(one: Any, other: Any, place: str = "") -> None:
    """Tensors bit for bit, whatever they lie in."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key, value in one.items():
            assert_same_values(value, other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, value in enumerate(one):
            assert_same_values(value, other[index], f"{place}[{index}]")
    else:
        assert one == other, place


def assert_same_run(run: Path, whole: Path) -> None:
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert {path.relative_to(run) for path in run.rglob("*") if path.is_file()} == names  # no leftovers too
    assert timeless(run) == timeless(whole)
    for name in names:
        if name.suffix == ".csv":
            rows = [list(csv.reader((folder / name).open(newline=""))) for folder in (run, whole)]
            assert rows[0] == rows[1], name
        elif name.suffix == ".safetensors":
            assert_same_values(load_file(run / name), load_file(whole / name), str(name))
        elif name.suffix == ".pt":
            states = [torch.load(folder / name, weights_only=True) for folder in (run, whole)]
            marks = [state.pop("run") for state in states]  # when each began
            assert marks[0] != marks[1]
            for state in states:
                state["figures"] = json.dumps(json.loads(state["figures"]) | {"seconds": None})
            assert_same_values(*states, str(name))
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
