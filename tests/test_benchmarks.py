"""The benchmarks that end in seconds where they are given little, as their pages type them."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from forked import Forked, script

from icsr_cli import config

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "prints"),
    [
        ("labels.py --n 300 --d 16", "300"),
        ("labels.py --sizes 300 --d 16 --approximate hnsw", "300"),
        ("labels.py --lean --slow-spectrum --approximate int8 --sizes 300 --d 16", "lean"),
        ("plan.py --sizes 1 --images 64 --iters 1", "resnet_small, 64 x 32 | epoch"),
        ("ranks.py --images 300 --features 16 --ranks 2", "| 2 |"),
        ("retrieval.py --queries 40 --gallery 200 --dimensions 8 --repeat 1", "times"),
        ("hostile.py --cases 58", "| tar.gz | 2 |"),
        ("pixels.py --store --people 8 --size 64x32 --workers 1", "| jpeg | 2 |"),
    ],
)
def test_a_benchmark_runs(command: str, prints: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file, *words = command.split()
    assert prints in Forked(tmp_path / "said", script, ROOT / "benchmarks" / file, words).end()[0]


def test_the_methods_of_the_benchmark_are_settings_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    methods = importlib.import_module("methods")
    for own in methods.METHODS.values():
        supervised = methods.TRUTH["global.clusterer"] == own.options.get("global.clusterer")
        options = {**own.options, "global.clusterer": "dbscan"} if supervised else own.options
        settings = config.load("synthetic", method=own.method, options=options)
        assert settings.global_.local is None or "global.local" in options


def test_the_supervised_bound_leaves_out_whom_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    methods = importlib.import_module("methods")
    found = methods.true_clusters(np.array([7, -1, 3, 7, -1, 12]))
    assert found.tolist() == [1, -1, 0, 1, -1, 2]
