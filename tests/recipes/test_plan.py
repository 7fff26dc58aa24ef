"""The schedule on paper."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from icsr_cli import config
from icsr_cli.cli.main import app
from icsr_cli.config.schema import ModelSettings
from icsr_cli.errors import UsageError
from icsr_cli.models import Network, build
from icsr_cli.recipes import plan as paper
from icsr_cli.recipes.plan import DEVICES, Rates, plan
from icsr_cli.recipes.spare_memory import spare_memory

#: One operation takes a second, nothing else takes time.
SLOW = Rates("slow", 1.0, 0.0, float("inf"), 1e9, float("inf"), launch=0.0)


def settings(**given: Any) -> Any:
    options = {"image.height": 32, "image.width": 16, "stages": ("global",), "precision": "fp32"}
    options |= {"global.model.arch": "resnet_small", "global.iters": 3, "global.batch_size": 8}
    options["evaluation.batch_size"] = 8
    return config.load("made-up", method="cluster-contrast", options={**options, **given})


def on_paper() -> Network:
    return paper._on_paper(ModelSettings(arch="resnet_small"), (32, 16))


def test_operations_are_those_of_torch() -> None:
    """Counted without numbers as FlopCounterMode counts them with numbers."""
    network = build("resnet_small")
    with FlopCounterMode(display=False) as counted:
        network(torch.zeros(4, 3, 32, 16)).square().sum().backward()
    found = paper._training(on_paper(), settings(), 4, SLOW)
    assert found.arithmetic == counted.get_total_flops()
    assert found.seconds == pytest.approx(found.arithmetic)


def test_activations_are_those_that_autograd_keeps() -> None:
    network = build("resnet_small")
    kept: dict[int, int] = {}
    held = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = network(torch.zeros(8, 3, 32, 16).to(memory_format=torch.channels_last))
    assert features.requires_grad
    weights = sum(parameter.numel() for parameter in network.parameters()) * 4
    found = paper._saved(on_paper(), torch.empty((8, 3, 32, 16), device="meta"))
    assert found == pytest.approx(sum(kept.values()) - weights, rel=0.1)


def test_a_transformer_is_planned_at_the_size_of_the_images() -> None:
    small, large = (
        plan(settings(**{"global.model.arch": "timm:test_vit", "image.height": height}), 64, 3, SLOW)
        for height in (32, 64)
    )
    assert large.stages[0].parts["training"].arithmetic > small.stages[0].parts["training"].arithmetic


def test_a_stage_that_begins_from_the_cam_stage_has_its_network() -> None:
    both = {"stages": ("cam", "global"), "cam.network": "shared", "cam.model.arch": "resnet_small"}
    own = settings(**both, **{"global.model.arch": "resnet50", "global.model.weights": "cam"})
    _, found = plan(own, 64, 3, SLOW).stages
    [small] = plan(settings(), 64, 3, SLOW).stages
    assert found.parts["training"] == small.parts["training"]


def test_what_more_devices_and_images_do() -> None:
    [one], [two] = (plan(settings(), 512, 3, DEVICES["t4"], n).stages for n in (1, 2))
    assert two.parts["extraction"].seconds == pytest.approx(one.parts["extraction"].seconds / 2)
    assert two.parts["training"].link > one.parts["training"].link == 0
    assert two.memory["activations"] < one.memory["activations"]
    [more] = plan(settings(), 1024, 3, DEVICES["t4"]).stages
    assert more.parts["training"] == one.parts["training"]
    assert more.parts["labels"].arithmetic == 4 * one.parts["labels"].arithmetic
    assert one.seconds == one.epoch * one.epochs
    [large] = plan(settings(**{"global.batch_size": 4096}), 512, 3, DEVICES["t4"]).stages
    assert sum(large.memory.values()) > sum(one.memory.values())


def test_a_batch_that_is_too_small_for_the_devices_is_not_split() -> None:
    few, many, one = (plan(settings(**{"global.batch_size": 8}), 64, 3, SLOW, n).stages[0] for n in (4, 5, 1))
    assert many.memory["activations"] == one.memory["activations"] > few.memory["activations"]


def test_features_by_camera_are_a_second_extraction() -> None:
    [once], [twice] = (
        plan(settings(**{"global.label_norm": norm}), 100, 3, SLOW).stages for norm in ("running", "camera")
    )
    assert twice.parts["extraction"].seconds == pytest.approx(2 * once.parts["extraction"].seconds)
    assert twice.parts["training"] == once.parts["training"]


def test_bytes_by_hand() -> None:
    """2 bytes a second, 4 over the link, operations at once: 8 images of 32 x 16 a step, 3 steps an epoch."""
    network = build("resnet_small")
    weights, pixels = 4 * sum(one.numel() for one in network.parameters()), 100 * 32 * 16 * 3
    unit = Rates("unit", float("inf"), 0.0, 2.0, 2.0 * pixels + 1, 4.0, launch=0.0)
    [one], [two] = (plan(settings(), 100, 3, unit, n).stages for n in (1, 2))
    assert one.memory["weights, gradients, optimiser"] == 4 * weights
    assert one.memory["features and centroids"] == 2 * 100 * network.dim * 4
    assert (one.memory["pixels"], one.parts["training"].link) == (pixels, 0)
    shared = two.parts["training"]
    assert shared.link == 3 * 2 * weights / 4
    assert shared.seconds == pytest.approx(shared.traffic + shared.link)
    [streamed] = plan(settings(), 100, 3, replace(unit, memory=2.0 * pixels)).stages
    assert (streamed.memory["pixels"], streamed.parts["training"].link) == (0, 3 * 8 * 32 * 16 * 3 / 4)
    assert streamed.parts["training"].seconds == one.parts["training"].seconds  # sent while the step computes
    [sgd] = plan(settings(**{"global.optimizer": {"method": "sgd"}}), 100, 3, unit).stages
    assert one.parts["training"].traffic - sgd.parts["training"].traffic == 3 * 2 * weights / 2
    assert one.parts["labels"].traffic == 100 * 100 * 12 * 40 / 2
    assert paper._labels(2000, 128, unit).traffic == 2000 * 1500 * 12 * 40 / 2
    assert paper._labels(100, 128, SLOW).arithmetic == 2 * 100 * 100 * 128


def test_networks_of_cameras_go_to_devices_whole() -> None:
    own = settings(stages=("cam",), **{"cam.model.arch": "resnet_small", "cam.network": "per-camera"})
    found = [plan(own, 600, 3, DEVICES["t4"], n).stages[0] for n in (1, 2, 3, 8)]
    assert [stage.networks for stage in found] == [3, 2, 1, 1]
    assert len({stage.epoch for stage in found}) == 1


@pytest.mark.parametrize("arch", ["resnet_small", "timm:test_vit"])
def test_what_is_computed_again_takes_time_and_no_memory(arch: str) -> None:
    """Counted as FlopCounterMode counts it in training; a part keeps its share."""
    stage = {"model.arch": arch, "batch_size": 16, "bn_group": 4}
    small = {"evaluation.batch_size": 1}  # so that extraction needs the least memory
    found = {}
    for name, given in (
        ("plain", {}),
        ("parts", {"accumulate": 2}),
        ("blocks", {"checkpoint": True}),
        ("both", {"accumulate": 2, "checkpoint": True}),
    ):
        own = settings(**{f"global.{key}": value for key, value in {**stage, **given}.items()}, **small)
        network = build(arch, size=(32, 16))
        spare_memory(network.base, own.global_)
        with FlopCounterMode(display=False) as counted:
            network(torch.zeros(16, 3, 32, 16)).square().sum().backward()
        [found[name]] = plan(own, 64, 3, SLOW).stages
        # Attention on a CPU is another operation than on paper.
        flops = pytest.approx(3 * counted.get_total_flops(), rel=0 if arch == "resnet_small" else 0.03)
        assert found[name].parts["training"].arithmetic == flops
    memory = {name: stage.memory["activations"] for name, stage in found.items()}
    assert memory["parts"] == pytest.approx(memory["plain"] / 2, rel=0.01)
    assert memory["both"] < memory["blocks"] < 0.8 * memory["plain"]
    with pytest.raises(UsageError, match="no 6 parts"):
        plan(settings(**{"global.accumulate": 3, "global.batch_size": 4}), 64, 3, SLOW, devices=2)


def test_what_an_optimiser_keeps() -> None:
    adam, sgd, plain = (
        plan(settings(**{"global.optimizer": {"method": method, **given}}), 64, 3, SLOW).stages[0]
        for method, given in (("adamw", {}), ("sgd", {}), ("sgd", {"momentum": 0}))
    )
    kept = [stage.memory["weights, gradients, optimiser"] for stage in (adam, sgd, plain)]
    assert kept == [pytest.approx(kept[0] * share) for share in (1, 3 / 4, 2 / 4)]


def test_what_binds() -> None:
    quick = Rates("quick", 1e30, 0.0, 1e30, 1e9, 1e30, launch=1.0)
    [found] = plan(settings(cuda_graph=False), 64, 3, quick).stages
    assert found.binds == "training: launching operations"
    assert plan(settings(), 64, 3, SLOW).stages[0].binds == "training: arithmetic"
    assert not plan(settings(), 64, 3, Rates("small", 1, 0, 1, 1.0, 1)).fits


def test_the_cpu_is_measured() -> None:
    found = paper.rates_of("cpu")
    assert 1e8 < found.fp32 < 1e14
    assert 1e7 < found.bandwidth < 1e13
    assert 0 < found.launch < 1e-2


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("Tesla T4", "t4"),
        ("NVIDIA L40S", None),
    ],
)
def test_the_gpu_of_this_machine_is_planned_for(
    name: str, device: str | None, monkeypatch: pytest.MonkeyPatch, tiny_root: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: name)
    own = {"options": {"cam.model.arch": "resnet_small", "global.model.arch": "resnet_small"}}
    asked = paper.answer("tiny", tiny_root, 2, None, **own)
    assert asked.rates == DEVICES[device or "a100"]
    assert paper.answer("tiny", tiny_root, 2, "t4", **own).rates == DEVICES["t4"]
    assert (paper.answer("tiny", tiny_root, None, None, **own).rates.name == "CPU") == (device is None)


def test_grouped_batch_norm_is_more_to_launch() -> None:
    [whole], [groups] = (
        plan(settings(cuda_graph=False, **{"global.bn_group": images}), 100, 3, DEVICES["h200"]).stages
        for images in (0, 4)
    )
    assert groups.parts["training"].launches > 2 * whole.parts["training"].launches
    assert groups.parts["training"].arithmetic == whole.parts["training"].arithmetic


def icsr(*words: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *words])


def test_the_command(tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["--plan", "--data-root", str(tiny_root), "-d", "tiny", "-a", "resnet_small"]
    answer = json.loads(icsr(*there, "--gpus", "2", "--gpu", "h100", "--json").stdout)
    assert (answer["dataset"], answer["devices"], answer["device"]) == ("tiny", 2, "NVIDIA H100 80 GB")
    assert answer["seconds"] == pytest.approx(sum(stage["seconds"] for stage in answer["stages"]))
    monkeypatch.setattr(paper, "here", lambda: None)  # as on a machine without a GPU
    table = icsr("--plan", "-d", "msmt17", "-a", "resnet_small", "--gpus", "8", "--data-root", str(tmp_path))
    assert table.exit_code == 0, table.output
    assert "msmt17: 32,621 training images under 15 cameras, on 8 x NVIDIA A100" in table.stdout
    vit = ("--method", "cluster-contrast", "-a", "timm:test_vit")
    for wrong, words in (
        (["--gpus", "2"], "add --plan"),
        ([*there, "--gpus", "0"], "at least 1"),
        ([*there, "--gpu", "abacus"], "no rates of 'abacus'"),
        (["--plan", "-d", "msmt17", *vit, "--set", "image.height=30"], "patches of 16 pixels"),
    ):
        found = icsr(*wrong)
        assert found.exit_code == 2
        assert words in found.stderr


def test_a_recorded_step_is_cheaper_to_launch() -> None:
    """On one GPU; several send their operations one by one."""
    slow = Rates("slow to launch", 1e30, 0.0, 1e30, 1e9, 1e30, launch=1.0)
    [recorded], [sent], [several] = (
        plan(settings(cuda_graph=graph), 100, 3, slow, devices).stages
        for graph, devices in ((True, 1), (False, 1), (True, 2))
    )
    steps, counted = sent.parts["training"].launches, paper._PLAYED * sent.parts["training"].launches
    assert recorded.parts["training"].launches == pytest.approx(counted + paper._RECORDING)
    assert steps == several.parts["training"].launches
    assert recorded.parts["extraction"] == sent.parts["extraction"]
