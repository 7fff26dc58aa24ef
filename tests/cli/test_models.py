"""``icsr models``: the facts, against numbers known from elsewhere."""

from __future__ import annotations

import json
import re

import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from icsr_cli import config, models
from icsr_cli.cli.main import app

#: The networks of methods.
TRANSFORMERS = {
    "cluster-contrast-vit-s": "timm:vit_small_patch16_224",
    "cluster-contrast-clip": "timm:vit_base_patch16_clip_quickgelu_224.openai",
}


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["models", *words], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_facts_of_resnet50_and_a_vit() -> None:
    found = json.loads(run("resnet50", "osnet_x1_0", "timm:test_vit", *TRANSFORMERS.values(), "--json"))
    resnet, osnet, vit, *transformers = found
    assert (resnet["height"], resnet["width"], resnet["features"]) == (256, 128, 2048)
    assert resnet["parameters"] == 25_557_032 - 2_049_000  # torchvision's, less its classifier
    assert resnet["pooling"] == "gem"
    assert resnet["weights"][0]["licence"].startswith("BSD-3-Clause")
    assert round(osnet["multiply_adds"] / 1e6, 1) == 978.9  # table 8 of the paper
    assert (vit["pooling"], vit["normalisation"], vit["mean"]) == ("cls", "half", [0.5, 0.5, 0.5])
    assert vit["weights"][0]["address"] == "https://huggingface.co/timm/test_vit.r160_in1k"
    assert (resnet["paper"], vit["paper"]) == ("arXiv 1512.03385", None)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network = models.build("timm:test_vit", size=(256, 128)).eval().to("meta")
        network(torch.empty(1, 3, 256, 128, device="meta"))
    assert vit["multiply_adds"] == counter.get_total_flops() // 2
    for method, network in zip(TRANSFORMERS, transformers, strict=True):
        said = re.findall(r"[\d,]{4,}\d", config.methods()[method].cost)
        assert said == [f"{round(one['multiply_adds'] / 1e6):,}" for one in (network, resnet)]


def test_a_size_of_whole_patches_is_shown() -> None:
    (found,) = json.loads(run("timm:vit_small_patch14_dinov2", "--height", "60", "--width", "30", "--json"))
    assert (found["height"], found["width"]) == (56, 28)


def test_the_table_fits_eighty_columns() -> None:
    shown = run("resnet_small", "resnet18", "timm:vit_small_patch16_224", "--height", "64", "--width", "32")
    lines = shown.splitlines()
    assert all(len(line) <= 80 for line in lines if "https" not in line)
    for words in (
        "resnet_small",
        "64 x 32",
        "LUPerson, see its page",
        "resnet18-f37072fd.pth",
        "- arXiv 1512.03385: resnet18",
    ):
        assert words in shown


def test_an_unknown_name() -> None:
    result = CliRunner().invoke(app, ["models", "resnet5"])
    assert result.exit_code == 2
    assert "Did you mean 'resnet50'" in result.output
