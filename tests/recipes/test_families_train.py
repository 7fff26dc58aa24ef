"""Tiny networks of other families in both stages, and every method: interrupted, they end as if they had not.

The published settings of transformers train with a tiny stand-in on a folder in the shape of Market-1501.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from same_run import assert_same_run
from tiny_world import TINY
from typer.testing import CliRunner

from icsr_cli import config
from icsr_cli.cli.main import app
from icsr_cli.config import Settings
from icsr_cli.errors import Interrupted
from icsr_cli.progress import Progress
from icsr_cli.recipes.cam_stage import train_cam_stage
from icsr_cli.recipes.evaluation import load_pixels
from icsr_cli.recipes.global_stage import train_global_stage
from icsr_cli.recipes.steps import Engine
from icsr_cli.recipes.trainer import Stage
from icsr_cli.runs import create
from icsr_cli.types import Dataset

ENGINE = Engine(torch.device("cpu"), "fp32")
SIZE = (64, 32)
SIZED = ["image.height=64", "image.width=32"]
#: Everything that training has for a family, at once.
FAMILIES = {
    "vit": ["model.arch=timm:test_vit", "model.drop_path=0.3", "model.freeze=[patch_embed]"],
    "convnext": ["model.arch=timm:test_convnext", "model.drop_path=0.3", "optimizer.schedule=cosine"],
}
SPARING = ["accumulate=2", "checkpoint=true", "clip=1.0"]
SHORT = ["epochs=2", "iters=2"]
OPTIMIZERS = {
    "vit": "optimizer={method: sgd, lr: 0.01, warmup: 1, milestones: [1], layer_decay: 0.8}",
    "convnext": "optimizer={method: adamw, lr: 0.001, decay_norms: false}",
}
#: Stand-ins of a method's own network and batches: what it has else stays.
SMALL = {
    "cluster-contrast-vit-s": ["model.arch=timm:test_vit"],
    "cluster-contrast-clip": ["model.arch=timm:test_vit"],
}
BATCH = ["batch_size=16", "num_instances=4", "bn_group=0", "model.weights=none"]


def below(stage: str, assignments: list[str]) -> list[str]:
    return [f"{stage}.{each}" for each in assignments]


def settings_of(method: str, assignments: list[str]) -> Settings:
    return config.load("tiny", family="synthetic", method=method, assignments=[*TINY, *SIZED, *assignments])


def stop_after(steps: int) -> Callable[[], None]:
    left = [steps]

    def check() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted("stopped")

    return check


@pytest.fixture(scope="module")
def pixels(tiny: Dataset, tiny_root: Path) -> torch.Tensor:
    image = settings_of("icsr", []).image
    return load_pixels(tiny, "train", image, tiny_root, ENGINE, Progress())


def run_stage(stage: str, opened: Stage) -> None:
    (train_cam_stage if stage == "cam" else train_global_stage)(opened)


def assert_resumes(tiny: Dataset, pixels: torch.Tensor, place: Path, stage: str, settings: Settings) -> Path:
    """Train at a stretch, and interrupted in the second epoch: the same to the bit. Gives the former."""
    folders = []
    for name, stops in (("whole", ()), ("parts", (3,))):
        run = create(place / name, "tiny", stage)
        # The truth, camera by camera, stands for the labels of a cam stage.
        local = np.unique(tiny.train.identities, return_inverse=True)[1].astype(np.int64)
        opened = Stage(tiny.train, pixels, settings, run, ENGINE, Progress(), local=local)
        for steps in stops:
            with pytest.raises(Interrupted):
                run_stage(stage, replace(opened, check=stop_after(steps)))
        run_stage(stage, opened)
        run.finish()
        folders.append(run.path)
    assert_same_run(folders[1], folders[0])
    return folders[0]


@pytest.mark.parametrize("stage", ["cam", "global"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_and_resumes_to_the_same_bits(
    tiny: Dataset, pixels: torch.Tensor, tmp_path: Path, family: str, stage: str
) -> None:
    own = [OPTIMIZERS[family], *FAMILIES[family], *SPARING, *SHORT, "model.stripes=1", "model.weights=none"]
    settings = settings_of("icsr", [*below(stage, own), "cam.network=shared"])
    run = assert_resumes(tiny, pixels, tmp_path, stage, settings)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines)
    state = torch.load(
        run / "checkpoints" / ("global.pt" if stage == "global" else "shared.pt"), weights_only=True
    )
    if stage == "global":
        assert len(state["optimizer"]["param_groups"]) > 1
    weights = load_file(run / "last.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("method", config.methods())
def test_every_method_resumes_to_the_same_bits(
    tiny: Dataset, pixels: torch.Tensor, tmp_path: Path, method: str
) -> None:
    changed = [*BATCH, *SHORT, *SMALL.get(method, [])]
    stages = config.load("tiny", family="synthetic", method=method).stages
    for stage in stages:
        settings = settings_of(method, below(stage, changed))
        assert_resumes(tiny, pixels, tmp_path / stage, stage, settings)


@pytest.mark.parametrize("dataset", ["market1501", "msmt17"])
@pytest.mark.parametrize("method", SMALL)
def test_the_published_recipes(method: str, dataset: str) -> None:
    settings: Any = config.load(dataset, method=method)
    own = settings.global_
    assert settings.stages == ("global",)
    assert (settings.image.height, settings.image.width) == (256, 128)
    assert (own.batch_size, own.iters, own.model.pooling) == (256, 200, "cls")
    assert own.model.freeze == ("patch_embed",)
    rate = own.optimizer
    assert (rate.method, rate.lr, rate.momentum, rate.weight_decay) == ("sgd", 3.5e-4, 0.9, 5e-4)
    clip = method.endswith("clip")
    assert (own.num_instances, own.model.drop_path) == ((16, 0.0) if clip else (8, 0.3))
    assert own.clusterer.eps == (0.7 if dataset == "msmt17" else 0.5 if clip else 0.6)


def icsr(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def market(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the tiny world is prepared as Market-1501."""
    monkeypatch.chdir(tmp_path)
    [rendered] = (tiny_root / "tiny").glob("rendered-*")
    shutil.copytree(rendered, tmp_path / "Market-1501-v15.09.15")
    icsr("prepare", "market1501", "--source", "Market-1501-v15.09.15", "--quiet")
    return tmp_path


LESS = ["image.height=64", "image.width=32", "global.epochs=1", "global.clusterer.min_samples=2"]


def sets(assignments: list[str]) -> list[str]:
    return [word for each in assignments for word in ("--set", each)]


@pytest.mark.parametrize("method", SMALL)
def test_the_published_recipes_train_with_a_stand_in(market: Path, method: str) -> None:
    """Two steps on a folder in the shape of Market-1501: all that the method says but network and batch."""
    less = [*LESS, *below("global", [*BATCH, "iters=2", *SMALL[method]]), "global.clusterer.eps=0.8"]
    icsr("train", "-d", "market1501", "--method", method, *sets(less), "--name", "own", "--quiet")
    run = market / "runs/market1501/global/own"
    settings = config.load_run(run / "settings.yaml")
    assert settings.global_.optimizer == config.load("market1501", method=method).global_.optimizer
    start = timm.create_model("test_vit", img_size=SIZE, num_classes=0).state_dict()
    assert load_file(run / "last.safetensors")["base.patch_embed.proj.weight"].shape == (
        start["patch_embed.proj.weight"].shape
    )


def test_vit_small_from_a_file_in_timm_s_layout(market: Path) -> None:
    """The command of the page, start to finish: weights of 224 x 224 at the size of the images."""
    torch.manual_seed(3)
    source = timm.create_model("vit_small_patch16_224")
    state = {name: value.contiguous() for name, value in source.state_dict().items()}
    save_file(state, market / "vit_small.safetensors")
    words = ["train", "global", "-d", "market1501", "-a", "timm:vit_small_patch16_224"]
    words += ["--init", "vit_small.safetensors", "--iters", "1", "-b", "8", "--refine", "none"]
    less = [*LESS, "global.clusterer={method: dbscan, eps: 0.8, min_samples: 2}"]
    less += ["global.bn_group=0", "global.num_instances=2", "global.optimizer={method: sgd, lr: 0.001}"]
    icsr(*words, *sets(less), "--name", "own", "--quiet")
    trained = load_file(market / "runs/market1501/global/own/last.safetensors")
    assert trained["base.pos_embed"].shape == (1, 1 + 4 * 2, 384)
    moved = trained["base.blocks.0.attn.qkv.weight"] - state["blocks.0.attn.qkv.weight"]
    assert 0 < moved.abs().max() < 0.1
    assert "mAP" in icsr("eval", "runs/market1501/global/own")


def test_faults_are_named_before_a_run_is_made(market: Path) -> None:
    for given, words in (
        (["global.accumulate=2", "global.bn_group=0"], "bn_group must say"),
        (["global.accumulate=2", "compile=true"], "compile does not go with global.accumulate"),
        (["global.accumulate=2000"], "more parts than batch_size"),
        (["global.optimizer={method: sgd, nesterov: true, momentum: 0}"], "nesterov"),
    ):
        options = [*LESS, "global.model={arch: resnet_small, weights: none}", *given]
        words_ = ["train", "global", "-d", "market1501", "--method", "cluster-contrast"]
        done = CliRunner().invoke(app, [*words_, *sets(options), "--name", "wrong", "--quiet"])
        assert done.exit_code == 2, done.output
        assert words in " ".join(done.stderr.split())
        assert not (market / "runs/market1501/global/wrong").exists()
