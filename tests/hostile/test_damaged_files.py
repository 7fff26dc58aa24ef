"""Damage of every kind of file: right content or a message, never a traceback, never other content.

Each case is a kind of file, a way to read it, and many kinds of damage. ``benchmarks/hostile.py`` tries the
same with many more.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from damage import damaged

from icsr_cli.datasets.archives import unpack
from icsr_cli.errors import IcsrError
from icsr_cli.models import build, load_weights, save_weights
from icsr_cli.runs import LabelTable, create, open_run, read_labels, write_labels
from icsr_cli.runs.evaluation import read_evaluations, record_evaluations

#: One kind of file: makes a whole one in a folder, and reads what lies there.
Case = tuple[Callable[[Path], Path], Callable[[Path], Any]]


def archive(suffix: str, mode: str) -> Case:
    def make(folder: Path) -> Path:
        path = folder / f"data{suffix}"
        rng = np.random.default_rng(0)
        members = {f"0001_c{i}.jpg": rng.bytes(700) + b"x" * 300 for i in range(4)}
        if suffix == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
                for name, content in members.items():
                    opened.writestr(zipfile.ZipInfo(name), content)
            return path
        with tarfile.open(path, mode) as opened:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                opened.addfile(member, io.BytesIO(content))
        return path

    def read(path: Path) -> Any:
        target = path.parent / "unpacked"
        try:
            unpack(path, target)
            return {file.name: file.read_bytes() for file in sorted(target.rglob("*")) if file.is_file()}
        finally:
            leftovers = [file for file in path.parent.iterdir() if file.name.startswith(".unpacking")]
            assert not leftovers
            for file in sorted(target.rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
            if target.is_dir():
                target.rmdir()

    return make, read


def labels(name: str) -> Case:
    def make(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        n = 30
        numbers = [rng.integers(-1, 5, n) for _ in range(5)]
        table = LabelTable(
            tuple(f"c{i % 3}/{i:04}.jpg" for i in range(n)),
            *numbers,
            np.array(["kept", "noise"])[numbers[0] % 2],
            {"cohesion": rng.random(n).astype(np.float32)},
        )
        write_labels(folder / name, table)
        return folder / name

    def read(path: Path) -> Any:
        read_labels(path)

    return make, read


def weights(suffix: str) -> Case:
    def make(folder: Path) -> Path:
        path = folder / f"model{suffix}"
        small = torch.nn.Linear(3, 4)
        save_weights(small, path) if suffix == ".safetensors" else torch.save(small.state_dict(), path)
        return path

    return make, lambda path: load_weights(path) and None


def run_file(name: str) -> Case:
    def make(folder: Path) -> Path:
        run = create(folder, "d", "global", name="r")
        run.write_settings({"seed": 1, "global": {"epochs": 3, "refiners": [{"method": "discard"}]}})
        for epoch in (1, 2, 3):
            run.record({"epoch": epoch, "loss": 0.5, "clusters": 7})
        run.save_state("global", {"epoch": 3, "best": 0.5})
        record_evaluations(run.path, [{"dataset": "d", "weights": "last.safetensors", "mAP": 0.5}])
        return run.path / name

    def read(path: Path) -> Any:
        run = open_run(path)
        run.info(), run.settings(), run.metrics(), run.load_state("global"), read_evaluations(run.path)

    return make, read


CASES: dict[str, Case] = {
    "tar": archive(".tar", "w"),
    "tar.gz": archive(".tar.gz", "w:gz"),
    "tar.xz": archive(".tar.xz", "w:xz"),
    "tar.bz2": archive(".tar.bz2", "w:bz2"),
    "zip": archive(".zip", ""),
    "labels.csv": labels("labels.csv"),
    "labels.npz": labels("labels.npz"),
    "weights.safetensors": weights(".safetensors"),
    "weights.pth": weights(".pth"),
    "run.json": run_file("run.json"),
    "settings.yaml": run_file("settings.yaml"),
    "metrics.jsonl": run_file("metrics.jsonl"),
    "checkpoint": run_file("checkpoints/global.pt"),
    "evaluation.json": run_file("evaluation.json"),
}
#: Their checksums tell: what is read is what was written.
CHECKED = ("tar.gz", "tar.xz", "tar.bz2", "zip")


def attempt(kind: str, folder: Path, seeds: range) -> dict[str, int]:
    """Damage a file of this kind in many ways, and read it; count what came of it."""
    make, read = CASES[kind]
    path = make(folder)
    whole = path.read_bytes()
    right = read(path)
    counts = {"read": 0, "refused": 0}
    for seed in seeds:
        path.write_bytes(damaged(whole, seed))
        try:
            found = read(path)
        except IcsrError as error:
            said = str(error)
            counts["refused"] += 1
        else:
            if kind in CHECKED:
                names = set(found) | set(right)
                assert all(found.get(name) == right.get(name) for name in names), (kind, seed)
            counts["read"] += 1
            continue
        assert 0 < len(said) < 2000, kind
    return counts


@pytest.mark.parametrize("kind", CASES)
def test_damage_is_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    counts = attempt(kind, tmp_path, range(120))
    assert sum(counts.values()) == 120
    if kind not in ("tar", "labels.csv"):  # these have no checksum and little structure
        assert counts["refused"] > 20


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.jpg", b"\0" * 200_000_000)
    with pytest.raises(IcsrError, match="more than 100 times its size"):
        unpack(path, tmp_path / "unpacked")
    assert [file.name for file in tmp_path.iterdir()] == ["bomb.zip"]


def test_a_search_cache_with_other_numbers_is_not_believed(tmp_path: Path) -> None:
    from icsr_cli.recipes.gallery import _read_cache, _write_cache

    class Silent:
        def warn(self, message: str) -> None:
            raise AssertionError(message)

    path = tmp_path / "features.safetensors"
    features = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    files = [(f"{i}.jpg", str(i)) for i in range(3)]
    _write_cache(path, files, features, Silent())  # type: ignore[arg-type]
    assert set(_read_cache(path, 4)) == set(files)
    whole = path.read_bytes()
    for seed in range(200):
        path.write_bytes(damaged(whole, seed))
        for file, row in _read_cache(path, 4).items():
            np.testing.assert_array_equal(row, features[files.index(file)])


def test_the_network_of_a_damaged_header_is_not_built(tmp_path: Path) -> None:
    from icsr_cli.models import open_model

    path = tmp_path / "model.safetensors"
    save_weights(build("resnet_small", seed=1), path, {"height": "64", "width": "32"})
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for key, value in (("arch", "resnet51"), ("stripes", "-3"), ("stripes", "x"), ("pooling", "sum")):
        header = json.loads(whole[8 : 8 + length])
        header["__metadata__"][key] = value
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        with pytest.raises(IcsrError):
            open_model(path)
