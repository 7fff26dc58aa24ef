from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icsr_cli.errors import InputError
from icsr_cli.features import extract
from icsr_cli.images.augment import normalise
from icsr_cli.models import build
from icsr_cli.progress import Task

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 32, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build("resnet_small", num_features=6, seed=0)


class Mean(nn.Module):
    """Gives the mean of each channel, and remembers what it was called with."""

    dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert torch.is_inference_mode_enabled()
        self.sizes.append(len(x))
        return x.mean((2, 3))


def test_equals_the_network_on_each_image(model: nn.Module) -> None:
    found = extract(model, PIXELS, batch_size=4)
    model.eval()
    with torch.no_grad():
        expected = torch.cat([model(normalise(torch.from_numpy(image[None]))) for image in PIXELS])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.dtype == torch.float32


def test_every_kind_of_pixels_and_rows_in_order(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", PIXELS)
    stored = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    rows = np.array([7, 2, 2, 10, 0])
    expected = normalise(torch.from_numpy(PIXELS)).mean((2, 3))
    for kind in (PIXELS, stored, torch.from_numpy(PIXELS)):
        torch.testing.assert_close(extract(Mean(), kind), expected)
        for chosen in (rows, rows.tolist(), torch.from_numpy(rows), rows.astype(np.int32)):
            model = Mean()
            torch.testing.assert_close(extract(model, kind, chosen, batch_size=2), expected[rows])
            assert model.sizes == [2, 2, 1]


def test_modes_come_back(model: nn.Module) -> None:
    model.train()
    frozen = model.base[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    extract(model, PIXELS)
    assert [module.training for module in model.modules()] == modes
    assert model.training
    assert not frozen.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    class Failing(Mean):
        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            raise RuntimeError("out of memory")

    failing = Failing()
    with pytest.raises(RuntimeError, match="out of memory"):
        extract(failing, PIXELS)
    assert failing.training


def test_result_is_an_ordinary_tensor() -> None:
    found = extract(Mean(), PIXELS)
    assert not found.is_inference()
    weight = torch.ones(3, requires_grad=True)
    (found * weight).sum().backward()
    torch.testing.assert_close(weight.grad, found.sum(dim=0))


def test_task_hears_of_every_image() -> None:
    class Counting(Task):
        done: list[int] = []  # noqa: RUF012

        def advance(self, count: int = 1) -> None:
            self.done.append(count)

    extract(Mean(), PIXELS, batch_size=4, task=Counting())
    assert Counting.done == [4, 4, 3]


def test_bf16_on_the_cpu_is_fp32(model: nn.Module) -> None:
    assert torch.equal(extract(model, PIXELS, precision="bf16"), extract(model, PIXELS))


def test_no_rows(model: nn.Module) -> None:
    assert extract(model, PIXELS, []).shape == (0, 6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("bf16", 5e-2)])
def test_cuda(precision: str, tolerance: float) -> None:
    network = build("resnet_small", num_features=6, seed=0)
    expected = extract(network, PIXELS)
    network.cuda()
    for pixels in (PIXELS, torch.from_numpy(PIXELS).cuda()):
        found = extract(network, pixels, device="cuda", precision=precision, batch_size=4)
        assert found.device.type == "cuda"
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.cpu(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": PIXELS.astype(np.float32)}, "pixels: expected uint8"),
        ({"pixels": PIXELS[0]}, r"\(32, 16, 3\)"),
        ({"pixels": [1, 2]}, "list"),
        ({"rows": [11]}, "rows must be images, 0 to 10, got 11"),
        ({"rows": [-1]}, "rows must be at least 0, got -1"),
        ({"rows": [0.5]}, "rows must be whole numbers, got dtype float64"),
        ({"rows": [[0]]}, r"rows must have shape \(n,\), got \(1, 1\)"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"precision": "fp16"}, "'fp16' is not one of fp32, bf16"),
    ],
)
def test_wrong_arguments(change: dict, message: str) -> None:
    arguments = {"pixels": PIXELS, "rows": None, **change}
    with pytest.raises(InputError, match=message):
        extract(Mean(), arguments.pop("pixels"), arguments.pop("rows"), **arguments)
