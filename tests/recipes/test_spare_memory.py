"""Parts of a batch and blocks computed twice, against the whole batch as it is; clipped gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icsr_cli.config.schema import ModelSettings, Settings, StageSettings
from icsr_cli.errors import UsageError
from icsr_cli.images.augment import Augmentation
from icsr_cli.memory import ClusterMemory, centroids_of
from icsr_cli.models import Network
from icsr_cli.models.batch_norm import group_batch_norm
from icsr_cli.optimizers import adamw
from icsr_cli.progress import Task
from icsr_cli.recipes.blocks import trained_parameters
from icsr_cli.recipes.spare_memory import check_parts, spare_memory
from icsr_cli.recipes.steps import Engine, Part, build_network, train_epoch
from icsr_cli.recipes.trainer import own_dice

BATCH, CLUSTERS, SIZE = 16, 4, (32, 16)
#: ConvNeXt halves its maps five times.
SIZE_OF_TIMM = (64, 32)
RESNET: dict[str, Any] = {"model": {"arch": "resnet_small", "weights": "none"}, "batch_size": BATCH}


def engine_of(precision: str = "fp32") -> Engine:
    return Engine(torch.device("cpu"), precision)


def size_of(arch: str) -> tuple[int, int]:
    return SIZE_OF_TIMM if arch.startswith("timm:") else SIZE


def network_of(own: StageSettings, *, double: bool = True, precision: str = "fp32") -> Network:
    network = build_network(own.model, 7, engine_of(precision), size_of(own.model.arch))
    if double:  # what is left of a difference is the algorithm's, not the rounding of this processor
        network.base.double()
        network.base.register_forward_pre_hook(lambda module, images: (images[0].double(),))
    if own.bn_group:
        group_batch_norm(network, own.bn_group)
    check_parts(network.base, own)
    spare_memory(network.base, own)
    return network


class Recorder(ClusterMemory):
    """A memory that notes how many images it was asked for."""

    asked: list[int]

    def loss(self, features: Tensor, targets: Tensor) -> Tensor:
        self.asked = [*getattr(self, "asked", []), len(features)]
        return super().loss(features, targets)


def train(network: Network, *, steps: int = 1, clip: float = 0.0, precision: str = "fp32") -> dict[str, Any]:
    """Take steps; gives the loss, the last gradients, the weights and the statistics."""
    drawn, size = np.random.default_rng(3), size_of(network.arch)
    pixels = torch.from_numpy(drawn.integers(0, 256, (BATCH, *size, 3), dtype=np.uint8))
    labels = np.arange(BATCH) % CLUSTERS
    features = torch.from_numpy(drawn.normal(size=(BATCH, network.dim))).float()
    memory = Recorder(centroids_of(features, labels))
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    with own_dice(5, torch.device("cpu")):
        loss = train_epoch(
            network,
            torch.optim.SGD(network.parameters(), lr=1e-3),
            pixels,
            [[Part(0, np.arange(BATCH), labels)]] * steps,
            [memory],
            Augmentation(*size, pad=2),
            torch.Generator().manual_seed(1),
            engine=engine_of(precision),
            task=Task(),
            check=lambda: None,
            clip=clip,
        )
    named = dict(network.named_parameters())
    return {
        "loss": torch.tensor(loss),
        "asked": memory.asked,
        "gradients": {name: value.grad for name, value in named.items() if value.grad is not None},
        "moved": {name: value.detach() - before[name] for name, value in named.items()},
        "buffers": dict(network.named_buffers()),
        "state": network.state_dict(),
    }


def assert_near(one: dict[str, Tensor], other: dict[str, Tensor], bound: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        scale = max(float(value.double().norm()), 1e-12)
        assert float((value.double() - other[name].double()).norm()) <= bound * scale, name


@pytest.mark.parametrize("given", [{}, {"bn_group": 4}])
def test_blocks_computed_twice_change_no_bit(given: dict[str, Any]) -> None:
    plain = train(network_of(StageSettings(**RESNET, **given), double=False), steps=2)
    spared = train(network_of(StageSettings(**RESNET, **given, checkpoint=True), double=False), steps=2)
    for part in ("gradients", "state"):
        assert plain[part].keys() == spared[part].keys()
        assert all(torch.equal(value, spared[part][name]) for name, value in plain[part].items())
    assert plain["loss"] == spared["loss"]


@pytest.mark.parametrize(
    ("parts", "group", "checkpoint"), [(2, 8, False), (4, 4, True), (2, 4, False), (2, 4, True)]
)
def test_parts_of_a_batch_are_the_batch_in_groups(parts: int, group: int, checkpoint: bool) -> None:
    """Gradients, weights and running statistics are those of the whole batch with the same groups."""
    whole = train(network_of(StageSettings(**RESNET, bn_group=group)), steps=2)
    own = StageSettings(**RESNET, bn_group=group, accumulate=parts, checkpoint=checkpoint)
    found = train(network_of(own), steps=2)
    assert_near(whole["gradients"], found["gradients"], 1e-6)
    assert_near(whole["moved"], found["moved"], 1e-6)
    assert_near(whole["buffers"], found["buffers"], 1e-9)
    assert found["asked"] == [BATCH, BATCH]
    counters = [value for name, value in found["buffers"].items() if name.endswith("num_batches_tracked")]
    assert counters
    assert all(int(value) == 2 for value in counters)


def timm(name: str, **given: Any) -> StageSettings:
    model = {"arch": f"timm:{name}", "weights": "none"}
    dropped = {"drop_path": given.pop("drop_path")} if "drop_path" in given else {}
    return StageSettings.model_validate({"model": {**model, **dropped}, "batch_size": BATCH, **given})


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_without_batch_norm_parts_are_the_batch(name: str) -> None:
    """Nothing else is needed: the BatchNorm on the features sees all of them. Uneven parts as well."""
    whole = train(network_of(timm(name)), steps=2)
    for parts in (4, 5):
        found = train(network_of(timm(name, accumulate=parts, checkpoint=True)), steps=2)
        assert_near(whole["gradients"], found["gradients"], 1e-6)
        assert_near(whole["moved"], found["moved"], 1e-6)
        assert_near(whole["buffers"], found["buffers"], 1e-9)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_resnet"])
def test_blocks_of_timm_computed_twice_change_no_bit(name: str) -> None:
    """The dice of stochastic depth are those of the first time; without them it is another training."""
    plain, spared, steady = (
        train(network_of(timm(name, **given), double=False), steps=2)
        for given in ({"drop_path": 0.4}, {"drop_path": 0.4, "checkpoint": True}, {})
    )
    for part in ("gradients", "state"):
        assert all(torch.equal(value, spared[part][key]) for key, value in plain[part].items())
    assert plain["loss"] == spared["loss"]
    # The tiny EfficientNet has no block that could be passed by.
    assert (plain["loss"] == steady["loss"]) == (name == "test_efficientnet")


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_resnet"])
def test_layer_decay_follows_the_groups_of_timm(name: str) -> None:
    """As timm's own groups for fine-tuning, where its head stands for ours."""
    import timm as library
    from timm.optim import param_groups_layer_decay

    network = build_network(timm(name).model, 1, engine_of(), SIZE_OF_TIMM)
    options = adamw.Options(lr=1.0, weight_decay=0.3, layer_decay=0.7, decay_norms=False)
    optimizer, _ = adamw.build(trained_parameters(network, 1), options)
    found = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    whole = library.create_model(name)
    spared = whole.no_weight_decay() if hasattr(whole, "no_weight_decay") else ()
    matched = param_groups_layer_decay(whole, 0.3, no_weight_decay_list=spared, layer_decay=0.7)
    theirs = {id(value): group for group in matched for value in group["params"]}
    for key, value in whole.named_parameters():
        if key.startswith(("head", "fc", "classifier")) and key not in dict(network.base.named_parameters()):
            continue
        ours = found[id(network.base.get_parameter(key))]
        assert ours["lr"] == pytest.approx(theirs[id(value)]["lr_scale"]), key
        assert ours["weight_decay"] == theirs[id(value)]["weight_decay"], key
    assert found[id(network.feat_bn.weight)]["lr"] == 1


def test_other_groups_are_another_training() -> None:
    """The comparison above can fail."""
    whole = train(network_of(StageSettings(**RESNET)))
    found = train(network_of(StageSettings(**RESNET, bn_group=8, accumulate=2)))
    with pytest.raises(AssertionError):
        assert_near(whole["gradients"], found["gradients"], 1e-3)


@pytest.mark.parametrize(
    ("given", "share"), [({"checkpoint": True}, 0.6), ({"accumulate": 4, "bn_group": 4}, 0.3)]
)
def test_less_is_kept_between_forward_and_backward(given: dict[str, Any], share: float) -> None:
    kept = []
    for own in (StageSettings(**RESNET), StageSettings(**RESNET, **given)):
        network, sizes = network_of(own, double=False).train(), [0]

        def pack(value: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes[0] += value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            network(torch.rand(BATCH, 3, *SIZE))
        kept.append(sizes[0])
    assert kept[1] < share * kept[0]


def test_nothing_is_computed_twice_in_evaluation() -> None:
    network = network_of(StageSettings(**RESNET, accumulate=2, bn_group=8, checkpoint=True)).eval()
    plain = network_of(StageSettings(**RESNET)).eval()
    images, calls = torch.rand(3, 3, *SIZE), [0]
    network.base[0].register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    with torch.no_grad():
        assert torch.equal(network(images), plain(images))
    assert calls == [1]
    assert network.state_dict().keys() == plain.state_dict().keys()


def test_long_gradients_are_cut_and_short_ones_are_not() -> None:
    whole = train(network_of(StageSettings(**RESNET)))
    norm = float(torch.stack([value.norm() for value in whole["gradients"].values()]).norm())
    cut = train(network_of(StageSettings(**RESNET)), clip=norm / 10)
    assert_near({name: value / 10 for name, value in whole["gradients"].items()}, cut["gradients"], 1e-5)
    free = train(network_of(StageSettings(**RESNET)), clip=norm * 10)
    assert all(torch.equal(value, free["moved"][name]) for name, value in whole["moved"].items())


SPARING = {"accumulate": 2, "checkpoint": True, "clip": 1.0}


@pytest.mark.parametrize(
    "own",
    [
        StageSettings(**RESNET),
        StageSettings(**RESNET, bn_group=8, **SPARING),
        timm("test_vit", **SPARING),
        timm("test_convnext", **SPARING),
    ],
    ids=["resnet", "resnet-sparing", "vit", "convnext"],
)
def test_a_step_in_bfloat16_is_near_one_in_float32(own: StageSettings) -> None:
    found = [
        train(network_of(own, double=False, precision=precision), precision=precision, clip=own.clip)
        for precision in ("fp32", "bf16")
    ]
    assert found[0]["loss"] != found[1]["loss"]
    assert float(found[1]["loss"]) == pytest.approx(float(found[0]["loss"]), rel=0.02)
    way = [torch.cat([value.flatten() for value in each["moved"].values()]) for each in found]
    assert float(torch.nn.functional.cosine_similarity(*way, dim=0)) > 0.98
    assert all(value.isfinite().all() for value in found[1]["state"].values())


@pytest.mark.parametrize(
    ("given", "how", "words"),
    [
        ({"accumulate": 2}, {}, "bn_group must say"),
        ({"accumulate": 2, "bn_group": 16}, {}, "divide a part: 16 / 2 images"),
        ({"accumulate": 3, "bn_group": 4}, {}, "divide a part"),
        ({"accumulate": 2, "bn_group": 8}, {"processes": 2}, "divide a part: 16 / 4 images"),
        ({"accumulate": 8, "bn_group": 4}, {"processes": 4}, "has no 32 parts"),
        ({"accumulate": 2}, {"processes": 2, "sync_bn": True}, "sync_bn takes the whole"),
        ({"bn_group": 4}, {"processes": 2, "sync_bn": True}, "--sync-bn out, or set bn_group to 0"),
    ],
)
def test_parts_that_would_be_another_training_are_refused(
    given: dict[str, Any], how: dict[str, Any], words: str
) -> None:
    own = StageSettings(**RESNET, **given)
    base = build_network(own.model, 1, engine_of(), SIZE).base
    with pytest.raises(UsageError, match=words):
        check_parts(base, own, **how)


def test_a_network_without_blocks_has_none_to_compute_again() -> None:
    own = StageSettings(**RESNET, checkpoint=True)
    with pytest.raises(UsageError, match="no blocks"):
        check_parts(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), own)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cam": {**RESNET, "accumulate": 17}}, "accumulate 17 is more parts than batch_size 16"),
        ({"cam": {"clip": -1}}, "clip"),
        ({"cam": {"clip": float("inf")}}, "clip"),
        ({"compile": True, "global": {"checkpoint": True}}, "compile does not go with global.checkpoint"),
        ({"compile": True, "cam": {"accumulate": 2}}, "compile does not go with cam.accumulate"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings.model_validate(given)


def test_the_default_is_as_it_was() -> None:
    own = StageSettings(model=ModelSettings(arch="resnet_small", weights="none"))
    network = build_network(own.model, 1, engine_of(), SIZE)
    spare_memory(network.base, own)
    assert "forward" not in vars(network.base)
    assert all("forward" not in vars(module) for module in network.modules())
