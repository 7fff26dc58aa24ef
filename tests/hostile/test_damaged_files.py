"""Damage of every kind of file: right content or a message, never a traceback, never other content.

Each case is a kind of file, a way to read it, and many kinds of damage. ``benchmarks/hostile.py`` tries the
same with many more.
"""

from __future__ import annotations

import copy
import io
import json
import math
import operator
import os
import signal
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parent))
from damage import damaged

from icsr_cli.datasets import index
from icsr_cli.datasets.archives import unpack
from icsr_cli.errors import IcsrError
from icsr_cli.images.decode import decode
from icsr_cli.images.store import open_pixels, verify_pixels
from icsr_cli.models import build, load_weights, save_weights
from icsr_cli.progress import Progress
from icsr_cli.recipes.comparison import compare
from icsr_cli.recipes.feature_files import read_features, renamed
from icsr_cli.recipes.gallery import _read_cache, _write_cache
from icsr_cli.recipes.model_card import origin_of
from icsr_cli.reports.pages.compare import compare_page
from icsr_cli.reports.pages.run import RunView, run_page
from icsr_cli.runs import LabelTable, create, read_labels, run_of, write_labels
from icsr_cli.runs.evaluation import read_evaluations, record_evaluations
from icsr_cli.types import Dataset, ImageRecord, Split

#: JSON that no parser which calls itself can bear.
DEEP = "[" * 100_000
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
            leftovers = [file for file in path.parent.iterdir() if file.suffix == ".tmp"]
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
            np.where(numbers[4] >= 0, "kept", "noise"),
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
        small: Any = torch.nn.Linear(3, 4)
        small.spec = build("resnet_small").spec
        save_weights(small, path) if suffix == ".safetensors" else torch.save(small.state_dict(), path)
        return path

    return make, lambda path: {name: value.tolist() for name, value in load_weights(path).items()}


def run_file(name: str) -> Case:
    def make(folder: Path) -> Path:
        run = create(folder, "d", "global", name="r")
        run.write_settings({"seed": 1, "global": {"epochs": 3, "refiners": [{"method": "discard"}]}})
        for epoch in (1, 2, 3):
            run.record({"epoch": epoch, "loss": 0.5, "clusters": 7})
        run.save_state("global", {"epoch": 3, "best": 0.5})
        run.write_environment({"python": "3.12", "command": ["icsr", "train"]})
        record_evaluations(run.path, [{"dataset": "d", "weights": "last.safetensors", "mAP": 0.5}])
        return run.path / name

    def read(path: Path) -> Any:
        run = run_of(path)
        assert run is not None
        run.info(), run.settings(), run.metrics(), read_evaluations(run.path), run.environment()
        return run.load_state("global")

    return make, read


def picture(suffix: str) -> Case:
    def make(folder: Path) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"crop{suffix}")
        return folder / f"crop{suffix}"

    def read(path: Path) -> Any:
        pixels = decode(path)
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.dtype == np.uint8

    return make, read


def some_split(folder: Path) -> Split:
    """Twelve small images of three cameras."""
    records = []
    for i in range(12):
        path = folder / f"c{i % 3}" / f"{i}.png"
        if not path.exists():  # a store is of files of that time
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((6, 3, 3), i, np.uint8)).save(path)
        records.append(ImageRecord(path.relative_to(folder).as_posix(), i % 3, i // 3))
    return Split(folder, tuple(records))


def index_file(name: str) -> Case:
    def make(folder: Path) -> Path:
        cameras = ("door", "hall", "exit")
        dataset = Dataset("shop", folder, {"train": some_split(folder)}, cameras, ("a note",), "folder")
        return index.write(folder / "data", dataset).with_name(name)

    return make, lambda path: index.load("shop", path.parents[1])


def pixel_store(name: str, store: Any = "raw") -> Case:
    def open_part(folder: Path) -> Any:
        return open_pixels(some_split(folder), folder / "pixels", 6, 3, name="train", store=store, workers=1)

    def make(folder: Path) -> Path:
        open_part(folder)
        return folder / "pixels" / name

    def read(path: Path) -> Any:
        verify_pixels(path.parent)
        return open_part(path.parents[1])[np.arange(12)].tolist()

    return make, read


def unverified(path: Path) -> Any:
    """Read a store as training does: what is damaged within images shows when they are decoded, or not."""
    found = open_pixels(some_split(path.parents[1]), path.parent, 6, 3, name="train", store="jpeg", workers=1)
    assert found[np.arange(12)].shape == (12, 6, 3, 3)


def features(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    paths = np.array([f"{i}.jpg" for i in range(20)])
    arrays = {"features": rng.random((20, 4), np.float32), "cameras": rng.integers(0, 3, 20), "paths": paths}
    np.savez_compressed(folder / "features.npz", **arrays)  # type: ignore[arg-type]
    return folder / "features.npz"


def read_features_file(path: Path) -> Any:
    given = read_features(path, renamed([]))
    return {"features": given.features.tolist(), "paths": given.paths.tolist()}


def features_alone(folder: Path) -> Path:
    np.save(folder / "features.npy", np.random.default_rng(0).random((30, 4)).astype(np.float32))
    return folder / "features.npy"


def cache(folder: Path) -> Path:
    rows = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    _write_cache(folder / "gallery.safetensors", [(f"{i}.jpg", str(i)) for i in range(3)], rows, Progress())
    return folder / "gallery.safetensors"


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
    "environment.json": run_file("environment.json"),
    "index.json": index_file("index.json"),
    "index.csv": index_file("index.csv"),
    "crop.jpg": picture(".jpg"),
    "crop.png": picture(".png"),
    "crop.webp": picture(".webp"),
    "pixels.npy": pixel_store("train-6x3.npy"),
    "pixels.json": pixel_store("train-6x3.json"),
    "pixels.jpegs": pixel_store("train-6x3.jpegs", "jpeg"),
    "pixels.jpegs.json": pixel_store("train-6x3.jpegs.json", "jpeg"),
    "offsets.npy": pixel_store("train-6x3.jpegs.offsets.npy", "jpeg"),
    "unverified.jpegs": (pixel_store("train-6x3.jpegs", "jpeg")[0], unverified),
    "features.npz": (features, read_features_file),
    "features.npy": (features_alone, read_features_file),
    "search cache": (cache, lambda path: _read_cache(path, 4)),
}
#: Their checksums tell: what is read is what was written.
CHECKED = ("tar.gz", "tar.xz", "tar.bz2", "zip", "index.json", "index.csv", "pixels.npy", "pixels.json",
           "pixels.jpegs", "pixels.jpegs.json", "offsets.npy", "features.npz", "weights.safetensors",
           "weights.pth", "checkpoint")  # fmt: skip

#: Without checksum and much structure; or what is damaged is left out, or made anew.
FORGIVEN = ("tar", "labels.csv", "crop.jpg", "environment.json", "pixels.npy", "pixels.json", "search cache",
            "features.npy", "pixels.jpegs", "pixels.jpegs.json", "offsets.npy",
            "unverified.jpegs")  # fmt: skip


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
                assert found == right, (kind, seed)
            counts["read"] += 1
            continue
        assert 0 < len(said) < 2000, kind
    return counts


@pytest.mark.parametrize("kind", ["features.npz", "labels.npz", "weights.pth", "zip"])
def test_a_list_of_members_that_ends_early_is_refused(kind: str, tmp_path: Path) -> None:
    """A comment of the first that is said to be as long as all that follows."""
    make, read = CASES[kind]
    path = make(tmp_path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as opened:
        start = opened.start_dir
    first = 46 + int.from_bytes(whole[start + 28 : start + 30], "little")
    first += int.from_bytes(whole[start + 30 : start + 32], "little")
    rest = whole.rindex(b"PK\x05\x06") - start - first
    path.write_bytes(whole[: start + 32] + rest.to_bytes(2, "little") + whole[start + 34 :])
    with pytest.raises(IcsrError):
        read(path)


@pytest.mark.parametrize("kind", CASES)
def test_damage_is_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    counts = attempt(kind, tmp_path, range(120))
    assert sum(counts.values()) == 120
    if kind not in FORGIVEN:
        assert counts["refused"] > 20


#: An archive that the user names may be a pipe; a folder without run.json is no run.
OURS = [kind for kind in CASES if not kind.startswith(("tar", "zip", "run.json"))]


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("other", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(kind: str, other: Callable[[Path], None], tmp_path: Path) -> None:
    make, read = CASES[kind]
    path = make(tmp_path)
    path.unlink()
    other(path)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("a pipe is waited for"))
    signal.alarm(20)
    try:
        with suppress(IcsrError, OSError):
            read(path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give where each value lies below ``value``."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inside:
        yield (*above, key)
        yield from places(below, (*above, key))


FILES = ("run.json", "settings.yaml", "metrics.jsonl", "evaluation.json", "environment.json")


@pytest.mark.parametrize(("stage", "name"), [("cam", "metrics.jsonl"), *(("global", name) for name in FILES)])
def test_any_value_of_a_run_may_be_another(stage: str, name: str, tmp_path: Path) -> None:
    run = create(tmp_path, "d", stage, name="r")
    run.update_info(pairs={"file": "p", "sha256": "1", "same": 1, "different": 0}, camera_names=["c"])
    own = {"model": {"arch": "x"}, "memory": [{"method": "m"}]}
    run.write_settings({"seed": 1, "image": {"height": 9, "width": 9}, stage: own})
    judged: dict[str, Any] = {"quality": {"nmi": 0.5, "pairwise_f": 0.5}}
    of_stage = {"global": {"quality": {"refined": judged["quality"]}}, "cam": {"cameras": {"0": judged}}}
    line = {"epoch": 1, "part": "shared", "loss": 0.5, "kept": 9, "eps": 0.5, "seconds": {"training": 1.0}}
    run.record(line | of_stage[stage])
    marks = [{"name": "best F1", "distance": 1.0}]
    measured = {"weights": "best.safetensors", "mAP": 0.5, "rerank": None, "thresholds": marks}
    record_evaluations(run.path, [measured])
    run.write_environment({"gpus": ["H"], "command": ["icsr"]})
    path = run.path / name
    whole = yaml.safe_load(path.read_text())
    absent = dict.fromkeys(("labels", "retrieval", "rankings", "map"), "none")
    refused = 0
    for *above, last in places(whole):
        for odd in ("x", None, -4, 1.5, [1], {}, {"method": 5}, 10**400, math.nan):
            tree = copy.deepcopy(whole)
            reduce(operator.getitem, above, tree)[last] = odd
            path.write_text((yaml.safe_dump if name.endswith("yaml") else json.dumps)(tree) + "\n")
            try:
                compare_page(compare([run])), run_page(run, RunView(None, None, None, absent))
                origin_of(run.path / "best.safetensors", run, None)
            except IcsrError:
                refused += 1
    assert refused > 20 or name == "environment.json"  # which is not needed


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.jpg", b"\0" * 200_000_000)
    with pytest.raises(IcsrError, match="more than 100 times its size"):
        unpack(path, tmp_path / "unpacked")
    assert [file.name for file in tmp_path.iterdir()] == ["bomb.zip"]


def test_a_search_cache_with_other_numbers_is_not_believed(tmp_path: Path) -> None:
    path = cache(tmp_path)
    right = _read_cache(path, 4)
    assert len(right) == 3
    whole = path.read_bytes()
    for seed in range(200):
        path.write_bytes(damaged(whole, seed))
        for file, row in _read_cache(path, 4).items():
            np.testing.assert_array_equal(row, right[file])


def test_a_search_cache_nested_deeply_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "gallery.safetensors"
    save_file({"features": np.eye(3, 4, dtype=np.float32)}, path, metadata={"files": DEEP})
    assert _read_cache(path, 4) == {}


def test_the_network_of_a_damaged_header_is_not_built(tmp_path: Path) -> None:
    from icsr_cli.models import open_model

    path = tmp_path / "model.safetensors"
    save_weights(build("resnet_small", seed=1), path, {"height": "64", "width": "32"})
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for key, value in (
        ("arch", "resnet51"),
        ("stripes", "-3"),
        ("stripes", "x"),
        ("pooling", "sum"),
        ("mean", DEEP),
    ):
        header = json.loads(whole[8 : 8 + length])
        header["__metadata__"][key] = value
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        with pytest.raises(IcsrError):
            open_model(path)
