import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from icsr_cli.errors import InputError
from icsr_cli.models import ModelSpec, available, build, detect, load_into
from icsr_cli.models.backbones.resnet_ibn import InstanceBatchNorm
from icsr_cli.models.network import Network, Pooling

GOLDEN = Path(__file__).parents[1] / "golden"
SPECS = json.loads((GOLDEN / "models.json").read_text())


def known_numbers(name: str, shape: list[int], index: int) -> torch.Tensor:
    """The recipe of tests/golden/README.md."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name == "gap.p":
        return torch.full(shape, 3.0)
    s = np.random.default_rng([SPECS["seed"], index]).standard_normal(int(np.prod(shape))).reshape(shape)
    if name.endswith("running_var"):
        s = 1 + 0.5 * np.abs(s)
    elif name.endswith("running_mean"):
        s = 0.1 * s
    elif len(shape) >= 2:
        s = s * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        s = 1 + 0.1 * s
    else:
        s = 0.1 * s
    return torch.from_numpy(s).float()


@pytest.mark.parametrize("key", sorted(SPECS["models"]))
def test_golden_names_shapes_and_output(key: str) -> None:
    golden = SPECS["models"][key]
    state = {
        name: known_numbers(name, golden["keys"][name], index)
        for index, name in enumerate(sorted(golden["keys"]))
    }
    model = build(golden["arch"], num_features=golden["num_features"], pooling=golden["pooling"])
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == golden["keys"]
    load_into(model, state, "golden")
    images = np.random.default_rng([SPECS["seed"], 10**6]).standard_normal((2, 3, *SPECS["input_hw"]))
    with torch.inference_mode():
        found = model.eval()(torch.from_numpy(images.astype(np.float32)))
    np.testing.assert_allclose(found, np.load(GOLDEN / "models.npz")[key], atol=2e-6)
    assert detect(state) == model.spec
    assert model.spec == ModelSpec(golden["arch"], golden["num_features"], golden["pooling"])


RESNETS = [arch for arch in available() if arch.startswith("resnet")]
CHOICES = [(0, "gem", 1), (48, "gem", 4), (48, "avg", 2), (0, "max", 4)]
CASES = [(arch, *CHOICES[i % 4]) for i, arch in enumerate(RESNETS)]


@pytest.mark.parametrize(
    ("arch", "num_features", "pooling", "stripes"),
    [*CASES, *(("resnet_small", *choice) for choice in CHOICES)],
)
def test_every_architecture(arch: str, num_features: int, pooling: str, stripes: int) -> None:
    with torch.device("meta"):
        model = build(arch, num_features=num_features, pooling=pooling, stripes=stripes)
        maps = model.base(torch.empty(2, 3, 128, 64))
        out = model(torch.empty(2, 3, 128, 64))
    assert len(model.base) == 8
    scale = 8 if arch == "resnet_small" else 16
    assert maps.shape[2:] == (128 // scale, 64 // scale)
    assert out.shape == (2, model.dim)
    assert model.dim == (num_features or maps.shape[1] * stripes)
    assert (model.arch, model.num_features, model.pooling, model.stripes) == (
        arch,
        num_features,
        pooling,
        stripes,
    )
    assert ("gap.p" in model.state_dict()) == (pooling == "gem")
    assert ("feat.weight" in model.state_dict()) == bool(num_features)
    assert not model.feat_bn.bias.requires_grad
    assert all(p.requires_grad for name, p in model.named_parameters() if name != "feat_bn.bias")


@pytest.mark.parametrize(("arch", "stride_2"), [("resnet18", "conv1"), ("resnet50", "conv2")])
def test_last_stride_is_one_in_the_right_convolution(arch: str, stride_2: str) -> None:
    with torch.device("meta"):
        layers = build(arch).base
    for stage, expected in ((layers[6], 2), (layers[7], 1)):
        strides = {
            name: layer.stride for name, layer in stage[0].named_modules() if isinstance(layer, nn.Conv2d)
        }
        assert strides.pop(stride_2) == (expected, expected)
        assert strides.pop("downsample.0") == (expected, expected)
        assert set(strides.values()) == {(1, 1)}


def test_ibn_is_in_the_first_three_stages_only() -> None:
    with torch.device("meta"):
        model = build("resnet_ibn50a")
    found = {name for name, layer in model.named_modules() if isinstance(layer, InstanceBatchNorm)}
    assert found == {
        f"base.{stage}.{block}.bn1" for stage, count in ((4, 3), (5, 4), (6, 6)) for block in range(count)
    }


def test_instance_batch_norm_splits_the_channels() -> None:
    torch.manual_seed(0)
    layer = InstanceBatchNorm(5).eval()
    nn.init.normal_(layer.IN.weight)
    nn.init.normal_(layer.IN.bias)
    nn.init.normal_(layer.BN.running_mean)
    x = torch.randn(3, 5, 4, 6)
    first = x[:, :2]
    mean = first.mean((2, 3), keepdim=True)
    variance = first.var((2, 3), keepdim=True, unbiased=False)
    first = (first - mean) / (variance + 1e-5).sqrt() * layer.IN.weight[:, None, None]
    first = first + layer.IN.bias[:, None, None]
    rest = (x[:, 2:] - layer.BN.running_mean[:, None, None]) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(layer(x), torch.cat((first, rest), 1))
    assert layer.half().BN.weight.dtype == torch.float16  # no attribute hides a method of Module


@pytest.mark.parametrize("kind", ["gem", "avg", "max"])
@pytest.mark.parametrize(("rows", "stripes"), [(6, 1), (6, 3), (7, 3), (4, 4)])
def test_pooling_against_a_loop(kind: str, rows: int, stripes: int) -> None:
    x = torch.randn(2, 3, rows, 5, generator=torch.Generator().manual_seed(rows), dtype=torch.float64).float()
    pool = Pooling(kind, stripes)
    if kind == "gem":
        nn.init.constant_(pool.p, 2.5)
    expected = torch.empty(2, stripes * 3)
    for image in range(2):
        for stripe in range(stripes):
            top, bottom = rows * stripe // stripes, rows * (stripe + 1) // stripes
            for channel in range(3):
                values = x[image, channel, top:bottom].flatten().tolist()
                if kind == "gem":
                    powers = [max(value, 1e-6) ** 2.5 for value in values]
                    pooled = (sum(powers) / len(powers)) ** (1 / 2.5)
                else:
                    pooled = max(values) if kind == "max" else sum(values) / len(values)
                expected[image, stripe * 3 + channel] = pooled
    torch.testing.assert_close(pool(x), expected)


def test_output_is_of_unit_length_in_both_modes_and_layouts() -> None:
    model = build("resnet_small", stripes=4, seed=0)
    images = torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        model.train(training)
        plain = model(images)
        torch.testing.assert_close(plain.norm(dim=1), torch.ones(4))
    last = model(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, atol=1e-5, rtol=1e-4)


def test_gradient_reaches_every_trained_parameter() -> None:
    model = build("resnet_small", num_features=16, stripes=2, seed=0)
    model(torch.randn(4, 3, 32, 16, generator=torch.Generator().manual_seed(0)))[:, 0].sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name == "feat_bn.bias"), name
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_seed_is_local() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second, other = (build("resnet_small", seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.base[0].weight, second.base[0].weight)
    assert not torch.equal(first.base[0].weight, other.base[0].weight)
    assert not torch.equal(build("resnet_small").base[0].weight, build("resnet_small").base[0].weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "resnet_smal"}, "Did you mean 'resnet_small'"),
        ({"arch": "resnet50", "pooling": "sum"}, "gem, avg, max"),
        (
            {"arch": "resnet50", "num_features": -1},
            "num_features must be a whole number of at least 0, got -1",
        ),
        ({"arch": "resnet50", "stripes": 0}, "stripes must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**arguments)


def test_more_stripes_than_rows() -> None:
    model: Network = build("resnet_small", stripes=4)
    with pytest.raises(InputError, match="2 rows, too few for 4 stripes"):
        model(torch.zeros(2, 3, 16, 16))
