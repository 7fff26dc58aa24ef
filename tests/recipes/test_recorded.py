"""A network recorded on a GPU: the same numbers."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icsr_cli.config import load
from icsr_cli.errors import TrainingError
from icsr_cli.models import build
from icsr_cli.models.batch_norm import group_batch_norm
from icsr_cli.models.network import unwrapped
from icsr_cli.progress import Progress
from icsr_cli.recipes.distributed import ALONE
from icsr_cli.recipes.recorded import Recorded
from icsr_cli.recipes.steps import Engine, repeatable
from icsr_cli.recipes.trainer import Trainer


class Dicing(nn.Module):
    """BatchNorm over groups, and dice; with ``waits`` it asks a GPU for a number."""

    def __init__(self, *, dropped: float = 0.5, waits: bool = False) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(dropped))
        self.waits = waits
        group_batch_norm(self.inside, 4)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.inside(images).mean((2, 3))
        return found * (found.sum().item() > 1e9) if self.waits else found


def network(device: str, **how: Any) -> Dicing:
    torch.manual_seed(0)
    return Dicing(**how).to(device).train()


def trained(module: nn.Module, inside: nn.Module, device: str, images: int = 8) -> dict[str, Tensor]:
    """Give the weights and statistics of ``inside`` after three steps, and the dice thrown since."""
    optimizer = torch.optim.Adam(inside.parameters(), lr=0.01)
    torch.manual_seed(1)
    data = torch.linspace(0, 1, 3 * images * 3 * 64, device=device).view(3, images, 3, 8, 8)
    for batch in data:
        with torch.autocast(device, torch.bfloat16):
            found = module(batch)
        optimizer.zero_grad(set_to_none=True)
        found.float().square().sum().backward()
        optimizer.step()
    return {**inside.state_dict(), "dice": torch.rand(3, device=device)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Let what records run its module some times, as torch's does, and give back what counts its calls."""
    calls: list[torch.Size] = []

    def record(module: nn.Module, sample: tuple[Tensor], *, allow_unused_input: bool) -> Any:
        assert allow_unused_input
        assert not torch.is_autocast_cache_enabled()
        for _ in range(4):
            module(*sample).sum().backward(inputs=list(module.parameters()))
            module.zero_grad(set_to_none=True)

        def play(images: Tensor) -> Any:
            calls.append(images.shape)
            return module(images)

        return play

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: int(1e9))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: int(4e9))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(6e9), 11))
    monkeypatch.setattr(torch.random, "fork_rng", lambda _, fork=torch.random.fork_rng: fork([]))
    return calls


def test_recording_leaves_no_trace(calls: list[torch.Size]) -> None:
    expected = trained(plain := network("cpu"), plain, "cpu")
    module = Recorded(inside := network("cpu"), pytest.fail)
    assert same(trained(module, inside, "cpu"), expected)
    assert [shape[0] for shape in calls] == [8, 8]


def test_other_shapes_go_the_usual_way_until_it_is_forgotten(calls: list[torch.Size]) -> None:
    module = Recorded(network("cpu"), pytest.fail)
    for images in (6, 8, 6, 8):
        module(torch.rand(images, 3, 8, 8))
    assert [shape[0] for shape in calls] == [8, 8]
    module.forget()
    for images in (8, 6, 8):
        module(torch.rand(images, 3, 8, 8))
    assert [shape[0] for shape in calls] == [8, 8, 6]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("operation not permitted when stream is capturing.\nMore", "is capturing\\).*cuda_graph=false"),
        ("CUDA out of memory", "^CUDA out of memory$"),
    ],
)
def test_what_cannot_be_recorded(
    fault: str, said: str, calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError(fault)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    module = Recorded(network("cpu"), pytest.fail)
    module(torch.rand(8, 3, 8, 8))
    with pytest.raises((TrainingError, RuntimeError), match=said):
        module(torch.rand(8, 3, 8, 8))


def test_a_small_gpu_goes_the_usual_way(calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a recording, which is tried before it is made, has not twice the memory of a step."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(5.9e9), 11))
    said: list[str] = []
    module = Recorded(network("cpu"), said.append)
    for _ in range(3):
        module(torch.rand(8, 3, 8, 8))
    module.forget()
    module(torch.rand(8, 3, 8, 8))
    assert calls == []
    assert len(said) == 1
    assert "takes 6.0 GB of its memory, and 5.9 are free" in said[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dropped", [0.0, 0.5])
def test_on_a_gpu(dropped: float) -> None:
    """The bits of what is not recorded, but for its dice, and the same each time."""
    device = torch.device("cuda")
    with repeatable(device):
        expected = trained(plain := network("cuda", dropped=dropped), plain, "cuda")
        insides = [network("cuda", dropped=dropped) for _ in range(2)]
        one, other = (trained(Recorded(inside, pytest.fail), inside, "cuda") for inside in insides)
    assert same(one, other)
    if dropped == 0:
        assert same(one, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_wait_on_a_gpu() -> None:
    """In a process of its own, whose generator is then lost."""
    code = (
        "import torch\nfrom test_recorded import Recorded, network\n"
        "module = Recorded(network('cuda', waits=True), print)\n"
        "for _ in range(2): module(torch.rand(8, 3, 8, 8, device='cuda'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert "TrainingError: The network cannot be recorded" in done.stderr


@pytest.mark.parametrize(
    ("device", "options", "recorded"),
    [
        ("cuda:0", {}, True),
        ("cpu", {}, False),
        ("cuda:0", {"cuda_graph": False}, False),
        ("cuda:0", {"global.checkpoint": True}, False),
        ("cuda:0", {"global.accumulate": 2}, False),
    ],
)
def test_who_is_recorded(device: str, options: dict[str, Any], recorded: bool) -> None:
    """Asked of what a trainer is before it has a network on a GPU."""
    own = {"global.model.arch": "resnet18", "global.batch_size": 64, "global.bn_group": 16}
    settings = load("folder", options={**own, **options})
    stage = SimpleNamespace(
        settings=settings, ranks=ALONE, engine=Engine(torch.device(device), "fp32"), progress=Progress()
    )
    trainer = SimpleNamespace(stage=stage, own=settings.global_, network=build("resnet18"))
    trainee = Trainer._trainee(trainer)  # type: ignore[arg-type]
    assert isinstance(trainee, Recorded) == recorded
    assert unwrapped(trainee) is trainer.network
