"""The commands of the page on training, typed as they stand, on small data; benchmarks on less than there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from forked import Forked, script
from safetensors.torch import save_file
from test_typed_commands import ROOT, SMALL, commands, section, type_in

PAGE = "docs/training.md"


@pytest.fixture
def home(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny world, where the page has `demo`."""
    monkeypatch.chdir(tmp_path)
    stage = {key: value for key, value in SMALL["global"].items() if key != "model"}
    small = {"image": {"height": 64, "width": 32}, "global": stage}
    (tmp_path / "small.yaml").write_text(json.dumps(small))
    monkeypatch.setenv("ICSR_CONFIG", str(tmp_path / "small.yaml"))
    shutil.copytree(tiny_root, tmp_path / "data")
    return tmp_path


def test_optimisers_and_batches_that_do_not_fit(home: Path) -> None:
    for title in ("Optimisers", "Batches that do not fit"):
        type_in([line.replace("-d demo", "-d tiny") for line in commands(section(PAGE, title))])
    assert len(list((home / "runs/tiny/global").glob("*/last.safetensors"))) == 3


def test_pixels_that_do_not_fit(home: Path) -> None:
    line, _ = commands(section(PAGE, "Pixels that do not fit into memory"))
    type_in([line.replace("-d demo", "-d tiny")])
    assert (home / "data/tiny/pixels/train-64x32.jpegs").is_file()


def test_published_recipes(home: Path) -> None:
    lines = commands(section(PAGE, "Published recipes of transformers"))
    [rendered] = (home / "data/tiny").glob("rendered-*")
    shutil.copytree(rendered, home / "Market-1501-v15.09.15")
    torch.manual_seed(0)
    state = timm.create_model("vit_small_patch16_224").state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, home / "vit_small.safetensors")
    type_in(["icsr prepare market1501 --source Market-1501-v15.09.15"])
    type_in([line.partition(" > ")[0] for line in lines[:2]])
    type_in([lines[2].replace("--iters 200", "--iters 1 -b 8")])


def test_the_benchmark_of_backbones(tmp_path: Path) -> None:
    [line] = commands(section(PAGE, "What a backbone costs"))
    file = line.split()[1]
    for less in ("--arch resnet_small,timm:test_vit --batch 4 --repeat 1", "--train resnet_small"):
        words = [*less.split(), "--out", str(tmp_path / "out.json")]
        if "--train" in less:
            few = ("global.epochs=1", "global.iters=1", "global.batch_size=16", "image.height=32")
            words += [word for each in (*few, "image.width=16") for word in ("--set", each)]
            fewer = ("train_identities=6", "test_identities=6", "cameras=3", "cameras_per_person=[2,3]")
            fewer = (*fewer, "images=[3,4]", "distractors=0", "junk=0", "height=32", "width=16")
            words += [word for each in fewer for word in ("--dial", each)]
        output = Forked(tmp_path / "said", script, ROOT / file, words).end()[0]
        assert all(row["network"] for row in json.loads((tmp_path / "out.json").read_text()))
        assert "| resnet_small |" in output
