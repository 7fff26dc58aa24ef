"""Rates against the slow, obvious version of each schedule, and steps against the formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from icsr_cli import choices
from icsr_cli.errors import InputError
from icsr_cli.models import build
from icsr_cli.optimizers import adam
from icsr_cli.optimizers.common import Trained
from icsr_cli.recipes.blocks import trained_parameters

METHODS = ("adam", "adamw", "sgd")


def options_of(method: str, **given: Any) -> Any:
    return choices.Choice("optimizers", "adam").read({"method": method, **given})


def rates(options: Any, epochs: int) -> list[float]:
    """What the optimiser is told, epoch by epoch."""
    parameters = Trained([Parameter(torch.ones(2))], epochs=epochs)
    optimizer, schedule = options.module.build(parameters, options)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        parameters[0].grad = torch.ones(2)
        optimizer.step()
        schedule.step()
    return found


def obvious(options: Any, epochs: int) -> list[float]:
    """Walk through the epochs and change the rate where something happens."""
    found, rate = [], options.lr
    for epoch in range(epochs):
        if options.schedule == "cosine":
            done = max(0, epoch - options.warmup) / (epochs - options.warmup)
            rate = options.lr * math.cos(math.pi / 2 * done) ** 2
        elif epoch in options.milestones or (
            not options.milestones and epoch > 0 and epoch % options.step_size == 0
        ):
            rate = rate * options.gamma
        steps_up = options.warmup + 1
        found.append(rate * (epoch + 1) / steps_up if epoch < options.warmup else rate)
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"step_size": 3, "gamma": 0.5},
        {"milestones": (4, 6), "gamma": 0.2},
        {"warmup": 3},
        {"warmup": 2, "milestones": (5, 11)},
        {"schedule": "cosine"},
        {"schedule": "cosine", "warmup": 4},
    ],
)
def test_the_rate_is_that_of_the_obvious_version(method: str, given: dict[str, Any]) -> None:
    options = options_of(method, lr=0.25, **given)
    np.testing.assert_allclose(rates(options, 14), obvious(options, 14), rtol=1e-12)


def test_the_published_recipe() -> None:
    """Up over ten epochs, a tenth of it from the 20th and the 40th on."""
    options = options_of("sgd", lr=3.5e-4, warmup=10, milestones=(20, 40))
    found = rates(options, 50)
    np.testing.assert_allclose(found[:11], 3.5e-4 * np.arange(1, 12) / 11)
    np.testing.assert_allclose(found[11:20], 3.5e-4)
    np.testing.assert_allclose(found[20:40], 3.5e-5)
    np.testing.assert_allclose(found[40:], 3.5e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_of_sgd_are_those_of_the_formula(nesterov: bool) -> None:
    options = options_of("sgd", lr=0.1, weight_decay=0.01, momentum=0.8, nesterov=nesterov)
    start = torch.linspace(-1, 1, 5)
    weight, gradient = Parameter(start.clone()), torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])
    optimizer, _ = options.module.build([weight], options)
    expected, velocity = start.clone(), torch.zeros(5)
    for _ in range(3):
        weight.grad = gradient.clone()
        optimizer.step()
        full = gradient + 0.01 * expected
        velocity = 0.8 * velocity + full
        expected = expected - 0.1 * (full + 0.8 * velocity if nesterov else velocity)
    torch.testing.assert_close(weight.detach(), expected)


def test_adamw_takes_the_decay_off_the_weights_and_adam_adds_it_to_the_gradient() -> None:
    start = torch.tensor([2.0, -4.0])
    for method in ("adamw", "adam"):
        weight = Parameter(start.clone())
        options = options_of(method, lr=0.1, weight_decay=0.5)
        optimizer, _ = options.module.build([weight], options)
        weight.grad = torch.tensor([1.0, 1.0])
        optimizer.step()
        gradient = torch.ones(2) if method == "adamw" else 1.0 + 0.5 * start
        before = start * (1 - 0.1 * 0.5) if method == "adamw" else start
        torch.testing.assert_close(weight.detach(), before - 0.1 * gradient.sign())


def test_adam_is_what_it_was() -> None:
    """One group, no names, torch's own steps: a checkpoint of before can be gone on with."""
    network = build("resnet_small", seed=1)
    optimizer, schedule = adam.build(trained_parameters(network, 3), adam.Options())
    plain = torch.optim.Adam(
        [value for value in network.parameters() if value.requires_grad],
        lr=3.5e-4,
        weight_decay=5e-4,
        fused=True,
    )
    before = torch.optim.lr_scheduler.StepLR(plain, 20, 0.1)
    assert optimizer.state_dict() == plain.state_dict()
    assert schedule.state_dict() == before.state_dict()
    of_a_list, _ = adam.build(list(network.parameters()), adam.Options())
    assert len(of_a_list.param_groups) == 1


def test_each_stage_of_a_resnet_has_its_share_of_the_rate() -> None:
    network = build("resnet_small", num_features=8, seed=1)
    parameters = trained_parameters(network, 3)
    options = options_of("sgd", lr=1.0, weight_decay=0.5, layer_decay=0.5, decay_norms=False)
    optimizer, schedule = options.module.build(parameters, options)
    found = {
        id(value): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for value in group["params"]
    }
    named = dict(network.named_parameters())
    trained = [name for name, value in named.items() if value.requires_grad]
    assert len(found) == len(parameters) == len(trained)
    # The stem, four stages, and what stands on them.
    below = {"0": 5, "1": 5, "4": 4, "5": 3, "6": 2, "7": 1}
    for name in trained:
        place = name.split(".")
        rate = 0.5 ** below[place[1]] if place[0] == "base" else 1.0
        decay = 0.5 if named[name].ndim > 1 else 0.0
        assert found[id(named[name])] == (rate, decay), name
    assert found[id(named["base.1.weight"])][1] == 0
    optimizer.step()
    for _ in range(20):
        schedule.step()
    assert max(group["lr"] for group in optimizer.param_groups) == pytest.approx(0.1)
    assert min(group["lr"] for group in optimizer.param_groups) == pytest.approx(0.1 / 32)


def test_a_plug_in_takes_parameters_as_a_list_and_may_ask_what_each_is(tmp_path: Path) -> None:
    file = tmp_path / "deep.py"
    file.write_text(
        "from torch.optim import RMSprop\n"
        "from torch.optim.lr_scheduler import ConstantLR\n"
        "from icsr_cli import choices\n"
        "class Options(choices.Options):\n"
        "    lr: float = 0.01\n"
        "def build(parameters, options):\n"
        "    plain = RMSprop(parameters, lr=options.lr)\n"
        "    rates = [options.lr * (1 + depth) for depth in parameters.depths]\n"
        "    groups = [{'params': [p], 'lr': r} for p, r in zip(parameters, rates)]\n"
        "    return (RMSprop(groups) if parameters.epochs > 5 else plain), ConstantLR(plain)\n"
    )
    choices.load_plugin(file)
    options = options_of("deep")
    network = build("resnet_small", seed=1)
    [group] = options.module.build(trained_parameters(network, 5), options)[0].param_groups
    assert len(group["params"]) == len(trained_parameters(network, 5))
    groups = options.module.build(trained_parameters(network, 6), options)[0].param_groups
    assert {round(group["lr"], 3) for group in groups} == {0.01, 0.02, 0.03, 0.04, 0.05, 0.06}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layer_decay": 0.5}, "layer_decay"),
        ({"decay_norms": False}, "decay_norms"),
        ({"schedule": "cosine"}, "number of epochs"),
    ],
)
def test_a_bare_list_of_parameters_cannot_say_what_is_asked(given: dict[str, Any], words: str) -> None:
    options = options_of("adamw", **given)
    with pytest.raises(InputError, match=words):
        options.module.build([Parameter(torch.ones(2))], options)


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("adam", {"schedule": "cosine", "milestones": (3,)}, "milestones are steps"),
        ("sgd", {"nesterov": True, "momentum": 0}, "nesterov looks ahead"),
        ("sgd", {"momentum": 1}, "less than 1"),
        ("adamw", {"layer_decay": 0}, "greater than 0"),
        ("adamw", {"momentum": 0.9}, "no such setting"),
    ],
)
def test_options_that_do_not_fit(method: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        options_of(method, **given)
