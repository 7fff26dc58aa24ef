"""The benchmarks that end in seconds where they are given little, as their pages type them."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import Forked, script

from icsr_cli import config

ROOT = Path(__file__).parents[1]
FEW = "--people 8 --arch resnet_small --height 32 --width 16 --batch-size 16 --iters 2"
LABELS = ("labels", "labels-msmt17", "labels-growth")
TINY = "--preset hard --seeds 1 --dial train_identities=8 --dial test_identities=6 --set global.iters=2"
PLANS = ("plan-1", "plan-8", "plan-measured")
PARTS_FOR_A_GPU = ("tests", *PLANS, *LABELS, "retrieval", "epoch", "epoch-compiled", "schedule")


@pytest.mark.parametrize(
    ("command", "prints"),
    [
        ("labels.py --n 300 --d 16", "300"),
        ("labels.py --sizes 300 --d 16 --approximate hnsw", "300"),
        ("labels.py --lean --slow-spectrum --approximate int8 --sizes 300 --d 16", "lean"),
        ("plan.py --sizes 1 --images 64 --iters 1", "resnet_small, 64 x 32 | epoch"),
        ("ranks.py --images 300 --features 16 --ranks 2", "| 2 |"),
        ("retrieval.py --queries 40 --gallery 200 --dimensions 8 --repeat 1", "times"),
        (f"training.py {FEW} --measure 1 --icsr-only", "| epoch |"),
        ("hostile.py --cases 58", "| tar.gz | 2 |"),
        (
            f"methods.py {TINY} --set global.epochs=1 --methods camera-aware --set global.distance.cross=6",
            "aware |",
        ),
        (f"review.py {TINY} --set global.epochs=1 --train on --epochs 1 --answers 0,2", "| 2 | asked |"),
        (f"assign.py {TINY} --set global.epochs=1", "| best F1 |"),
        ("pixels.py --store --people 8 --size 64x32 --workers 1", "| jpeg | 2 |"),
    ],
)
def test_a_benchmark_runs(command: str, prints: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file, *words = command.split()
    assert prints in Forked(tmp_path / "said", script, ROOT / "benchmarks" / file, words).end()[0]


@pytest.mark.parametrize(
    ("mode", "device"), [([], "cuda"), (["quick"], "cuda"), (["quick"], "cpu")], ids=["full", "quick", "cpu"]
)
def test_every_part_for_a_gpu_is_a_command_that_can_be_typed(
    mode: list[str], device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the script calls is written down instead of run; one part fails, and the others follow."""
    python, said, out = tmp_path / "python", tmp_path / "said", tmp_path / "figures"
    python.write_text(f'#!/bin/sh\necho "$@" >> {said}\ncase "$*" in *retrieval*) exit 3;; esac\n')
    python.chmod(0o755)
    own = {"PYTHON": str(python), "GPU_DEVICE": device, "PATH": os.defpath}
    done = subprocess.run(
        ["bash", ROOT / "benchmarks/gpu.sh", *mode, out], env=own, capture_output=True, text=True
    )
    assert (done.returncode, (out / "failed.txt").read_text()) == (1, "retrieval\n"), done.stderr
    assert {file.stem for file in out.iterdir()} == {"environment", "failed", *PARTS_FOR_A_GPU}
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    devices = []
    for file, *words in map(str.split, said.read_text().splitlines()):
        if file == "-m":
            assert words[0] in ("icsr_cli", "pytest")
            assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
            continue
        monkeypatch.setattr(sys, "argv", [file, *words])
        with pytest.raises(Parsed) as found:
            importlib.import_module(Path(file).stem).main()
        devices.append(found.value.args[0].device)
    assert devices == [device] * 8


def test_every_comparison_of_the_pages_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of methods, worlds, dials and settings, whole or in part: all that runs before the training."""
    methods = importlib.import_module("methods")
    from icsr_cli.synthesis import World

    pages = "".join((ROOT / page).read_text() for page in ("README.md", "docs/results.md", "docs/tried.md"))
    lines = re.findall(
        r"python benchmarks/methods\.py (.+?)[`\n]|`(--(?:preset|methods|set|dial) .+?)`", pages
    )
    assert len(lines) > 30
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    few = ("train_identities=2", "test_identities=2", "distractors=0")
    world = methods.World(tmp_path, "hard", 1, (), few)
    for line in map("".join, lines):
        monkeypatch.setattr(sys, "argv", ["methods.py", *shlex.split(line)])
        with pytest.raises(Parsed) as found:
            methods.main()
        (options,) = found.value.args
        dials = dict(dial.split("=") for dial in options.dial)
        for preset in options.preset.split(","):
            World.preset(preset, seed=1, **{name: json.loads(value) for name, value in dials.items()})
        assert all(int(seed) > 0 for seed in options.seeds.split(","))
        world.assignments = options.set
        for key in options.methods.split(",") if "--methods" in line else ["camera-aware"]:
            world.settings(methods.METHODS[key])


_parse = argparse.ArgumentParser.parse_args


class Parsed(Exception):  # noqa: N818
    """Holds the options of a command that was about to begin."""


def parse_and_stop(parser: argparse.ArgumentParser) -> None:
    raise Parsed(_parse(parser))


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
