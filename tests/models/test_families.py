"""Backbones of timm and OSNet: what they give, what they refuse, where their weights come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from icsr_cli.config.schema import ModelSettings
from icsr_cli.errors import InputError, ModelError
from icsr_cli.models import (
    ModelSpec,
    Network,
    available,
    build,
    detect,
    faults,
    open_model,
    resized,
    save_weights,
)
from icsr_cli.models.backbones import resnet
from icsr_cli.models.backbones import timm as family
from icsr_cli.models.unfilled import unfilled
from icsr_cli.types import IMAGENET, PIXEL_NORMS, PixelNorm

timm = pytest.importorskip("timm")
SIZE = (64, 32)
HALF = PIXEL_NORMS["half"]


def images(count: int = 3, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(
    ("name", "options", "dim"),
    [
        ("test_vit", {}, 64),
        ("test_vit", {"pooling": "avg", "stripes": 4}, 4 * 64),
        ("test_vit4", {"pooling": "gem", "num_features": 10}, 10),
        ("test_convnext", {}, 64),
        ("test_efficientnet", {"pooling": "max", "stripes": 2}, 2 * 256),
        ("swin_tiny_patch4_window7_224", {"stripes": 2}, 2 * 768),
        ("xcit_nano_12_p8_224", {"pooling": "avg", "stripes": 2}, 2 * 128),
        ("twins_svt_small", {"stripes": 2}, 2 * 512),
    ],
)
def test_every_kind_trains_and_travels(name: str, options: dict[str, Any], dim: int, tmp_path: Path) -> None:
    network = build(f"timm:{name}", size=SIZE, seed=1, **options)
    found = network(images())
    assert (found.shape, network.dim) == ((3, dim), dim)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    found[:, 0].sum().backward()
    idle = [part for part, value in network.named_parameters() if value.grad is None]
    assert idle == ["feat_bn.bias"]
    save_weights(network, tmp_path / "n.safetensors", {"height": "64", "width": "32"})
    opened = open_model(tmp_path / "n.safetensors").eval()
    assert opened.spec == network.spec
    assert torch.equal(opened(images()), network.eval()(images()))


def test_the_class_token_is_timm_s_own_after_the_norm() -> None:
    reference = timm.create_model("test_vit", img_size=SIZE, num_classes=0).eval()
    network = build("timm:test_vit", size=SIZE).eval()
    network.base.load_state_dict(reference.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network.gap(network.base(images())[:, 0]), reference(images()))
        expected = nn.functional.normalize(network.feat_bn(reference(images())))
        torch.testing.assert_close(network(images()), expected)


def test_tokens_are_pooled_where_their_patches_are() -> None:
    network = build("timm:test_vit2", size=SIZE, pooling="avg", stripes=2, seed=0).eval()
    with torch.no_grad():
        tokens = network.base(images())[:, 1:]  # 4 x 2 patches of 16 pixels, row by row
        pooled = network.gap(network._maps(network.base(images()), SIZE[0]))
    torch.testing.assert_close(pooled, torch.cat([tokens[:, :4].mean(1), tokens[:, 4:].mean(1)], dim=1))


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("test_vit2", "avg"),
        ("vit_medium_patch16_rope_reg1_gap_256", "avg"),
        ("vit_small_patch14_reg4_dinov2", "cls"),
    ],
)
def test_registers_are_no_class_token(name: str, pooling: str) -> None:
    assert family.architecture(name).pooling == pooling
    if pooling == "avg":
        with pytest.raises(InputError, match=f"and timm:{name} has none"), unfilled():
            build(f"timm:{name}", pooling="cls")


def test_images_of_another_size() -> None:
    network = build("timm:test_vit", size=SIZE, seed=0).eval()
    with pytest.raises(InputError, match="made for 64 x 32, got 32 x 32"):
        network(images(2, (32, 32)))
    assert resized(network, SIZE) is network
    other = resized(network, (128, 48))
    assert other.size == (128, 48)
    assert not other.training
    assert other(images(2, (128, 48))).shape == (2, 64)
    assert network.base.pos_embed.shape[1] == 1 + 8
    assert other.base.pos_embed.shape[1] == 1 + 24
    small = build("resnet_small")
    assert resized(small, (128, 48)) is small


@pytest.mark.parametrize(
    ("arch", "options", "words"),
    [
        ("timm:test_vi", {}, "Did you mean 'timm:test_vit"),
        ("timm:test_vit.nothing", {}, "no weights 'nothing'"),
        ("timm:test_convnext", {"pooling": "cls"}, "cls takes the class token"),
        ("timm:test_vit", {"stripes": 2}, "cls, which is one token"),
        ("timm:vit_small_patch14_dinov2", {"size": (256, 128)}, "--height 252 --width 126"),
        ("timm:convit_tiny", {}, "takes no images of 64 x 32 .*--height 224 --width 224"),
        ("osnet_x0_25", {"stripes": 2}, "layers after the pooling"),
        ("resnet_small", {"pooling": "cls"}, "resnet_small has none"),
        ("resnet_small", {"drop_path": 0.1}, "resnet_small takes 0"),
        ("timm:test_vit", {"freeze": ["stem"]}, "no part 'stem'. It has cls_token, pos_embed, patch_embed"),
        ("resnet_small", {"mean": "imagenett"}, "mean: expected imagenet, half"),
        ("resnet_small", {"std": (0.1, 0.1, 0.0)}, "std: expected three numbers"),
        ("resnet_small", {"mean": 5}, "mean: expected imagenet, half, .* or three numbers, got 5"),
        ("resnet_small", {"mean": "111"}, "or three numbers, got '111'"),
        ("resnet_small", {"std": ("a", None, 10**400)}, "std: expected imagenet, half"),
        ("resnet_small", {"drop_path": "a"}, "drop_path: 'a': resnet_small takes 0"),
        ("timm:test_vit", {"drop_path": "a"}, "takes 0 to 1"),
        ("resnet_small", {"size": (0, 32)}, "size: height must be a whole number of at least 1, got 0"),
        ("resnet_small", {"size": (64, -32)}, "size: width must be a whole number of at least 1, got -32"),
        ("resnet_small", {"size": 64}, r"size must be \(height, width\), got 64"),
        ("nowhere:resnet", {}, "not one of"),
    ],
)
def test_what_does_not_fit_is_refused(arch: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(arch, **{"size": SIZE, **options})


def test_frozen_parts_and_stochastic_depth() -> None:
    network = build("timm:test_vit", size=SIZE, drop_path=0.5, freeze=["patch_embed", "pos_embed"], seed=0)
    still = {name for name, value in network.named_parameters() if not value.requires_grad}
    assert still == {
        "base.patch_embed.proj.weight",
        "base.patch_embed.proj.bias",
        "base.pos_embed",
        "feat_bn.bias",
    }
    one, other = network(images()), network(images())
    assert not torch.equal(one, other)
    network.eval()
    assert torch.equal(network(images()), network(images()))


def test_norms_come_from_the_word_then_the_file_then_the_family(tmp_path: Path) -> None:
    assert build("resnet_small").norm == IMAGENET
    assert build("timm:test_vit", size=SIZE).norm == HALF
    own = build("resnet_small", mean="clip", std=(0.2, 0.3, 0.4), seed=1)
    assert own.norm == PixelNorm(PIXEL_NORMS["clip"].mean, (0.2, 0.3, 0.4))
    path = tmp_path / "own.safetensors"
    save_weights(own, path)
    assert open_model(path).norm == own.norm
    assert build("resnet_small", weights=path).norm == own.norm
    assert build("resnet_small", weights=path, mean="half", std="half").norm == HALF
    save_weights(build("timm:test_vit", size=SIZE, mean="imagenet", std="imagenet"), path)
    assert open_model(path).norm == IMAGENET  # though the family's is another


def test_settings_take_the_pooling_of_the_architecture() -> None:
    assert ModelSettings().pooling == "gem"
    assert ModelSettings(arch="timm:test_vit").pooling == "cls"
    assert ModelSettings(arch="timm:test_vit", pooling="avg", stripes=2).pooling == "avg"
    assert ModelSettings.model_validate({"mean": [0.1, 0.2, 0.3]}).mean == (0.1, 0.2, 0.3)
    for wrong, words in (
        ({"arch": "timm:test_vit", "stripes": 2}, "one token"),
        ({"drop_path": 0.1}, "no stochastic depth"),
        ({"pooling": "cls", "stripes": 1}, "cls takes the class token, and resnet50 has none"),
        ({"mean": "clips"}, "luperson"),
    ):
        with pytest.raises(ValueError, match=words):
            ModelSettings.model_validate(wrong)


def test_what_takes_seconds_is_loaded_where_it_is_used() -> None:
    code = (
        "import sys; import icsr_cli.cli.train, icsr_cli.recipes.global_stage\n"
        "from icsr_cli.config import load; load('folder')\n"
        "assert not {'timm', 'torchvision', 'sklearn', 'torch._dynamo'} & set(sys.modules)\n"
        "from icsr_cli.models import build, detect; detect(build('resnet_small').state_dict())\n"
        "assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("arch", resnet.ARCHITECTURES)
def test_weights_of_imagenet_are_the_first_that_torchvision_published(arch: str) -> None:
    source = resnet.ARCHITECTURES[arch].source
    assert source is not None
    assert source.address == torchvision.models.get_model_weights(arch).IMAGENET1K_V1.url


class TestHub:
    @pytest.fixture(autouse=True)
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)

    def test_nothing_is_fetched_without_being_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fetch(*_: Any) -> str:
            raise AssertionError("nobody asked")

        monkeypatch.delenv("ICSR_DOWNLOAD", raising=False)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
        with pytest.raises(ModelError, match=r"test_vit\.r160_in1k.*Add --download.*apache-2\.0"):
            build("timm:test_vit", size=SIZE, weights="imagenet")

    def test_what_was_asked_for_is_fetched_and_fitted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from safetensors.torch import save_file

        source = timm.create_model("test_vit")
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        asked = []

        def fetch(where: str, file: str) -> str:
            asked.append((where, file))
            return str(tmp_path / file)

        monkeypatch.setenv("ICSR_DOWNLOAD", "1")
        monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
        for word in ("imagenet", "pretrained"):
            network = build("timm:test_vit", size=SIZE, weights=word)
            assert torch.equal(network.base.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
            assert network.base.pos_embed.shape[1] == 1 + 8  # of 10 x 10 in the file
        assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")] * 2
        network = build("timm:test_vit", size=(320, 80), weights=word)  # 20 x 5 patches, as many
        expected = timm.layers.resample_abs_pos_embed(source.pos_embed.detach(), [20, 5], [10, 10], 1)
        assert torch.equal(network.base.pos_embed, expected)

    def test_a_classifier_of_any_name_is_left_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from safetensors.torch import save_file

        source, path = timm.create_model("shvit_s1"), tmp_path / "model.safetensors"
        save_file(source.state_dict(), path)
        assert "head.l.weight" in source.state_dict()
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(path))
        network = build("timm:shvit_s1", size=SIZE, weights="imagenet")
        found = network.base.state_dict()
        assert all(torch.equal(value, source.state_dict()[name]) for name, value in found.items())

    def test_no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fetch(*_: Any) -> str:
            raise OSError("no network")

        monkeypatch.setenv("ICSR_DOWNLOAD", "1")
        monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
        with pytest.raises(ModelError, match=r"could not be fetched \(no network\).*--init FILE"):
            build("timm:test_vit", size=SIZE, weights="pretrained")


@pytest.mark.parametrize("arch", [arch for arch in available() if "osnet" in arch])
def test_osnet_has_the_size_of_the_paper(arch: str) -> None:
    """Table 8 of the paper, in millions, without the classifier."""
    network: Network = build(arch)
    count = sum(value.numel() for part in (network.base, network.neck) for value in part.parameters())
    millions = {"x1_0": 2.2, "x0_75": 1.3, "x0_5": 0.6, "x0_25": 0.2}[
        arch.removeprefix("osnet_").removeprefix("ibn_")
    ]
    assert round(count / 1e6, 1) == millions
    assert detect(network.state_dict()) == ModelSpec(arch, pooling="avg")
    assert network.base(images(2)).shape[2:] == (4, 2)


def test_a_family_says_where_its_weights_are() -> None:
    found = family.architecture("test_vit").pages["timm's"]
    assert found.address == "https://huggingface.co/timm/test_vit.r160_in1k"
    assert not family.architecture("mixer_s16_224").pages


def test_stripes_of_a_class_token_are_a_fault() -> None:
    [fault] = faults((32, 16), 2, (), arch="timm:test_vit", pooling="cls")
    assert fault.startswith("stripes: 2 do not go with cls")
