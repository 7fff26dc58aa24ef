"""Files of weights trained on people, in the layouts of their sources: read strictly, to the same outputs.

Each test makes a state dict of random numbers with the names and shapes of the source, and holds what the
network gives against a plain definition that reads the source's names.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from icsr_cli.errors import ModelError
from icsr_cli.models import Network, build, detect, load_into, open_model
from icsr_cli.models.backbones import timm as family
from icsr_cli.models.backbones.solider import SEMANTIC_WEIGHT
from icsr_cli.types import PIXEL_NORMS, PixelNorm

pytest.importorskip("timm")
State = dict[str, Tensor]
SIZE, GRID = (64, 32), (4, 2)
VIT, CLIP = "timm:vit_small_patch16_224", "timm:vit_base_patch16_clip_quickgelu_224"


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def numbers(shapes: dict[str, tuple[int, ...]]) -> State:
    """Random numbers that keep a deep network in bounds."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            value = 1 + value.abs()
        elif len(shape) > 1:
            value = value * (0.5 / (value[0].numel() ** 0.5 if len(shape) != 3 else 5))
        elif name.endswith("weight"):
            value = 1 + 0.1 * value
        else:
            value = 0.1 * value
        state[name] = value
    return state


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def batch_norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    stats = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return norm_shapes(name, width) | stats


def linear_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def vit_blocks(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(12):
        at = f"blocks.{block}"
        shapes |= norm_shapes(f"{at}.norm1", width) | norm_shapes(f"{at}.norm2", width)
        shapes |= linear_shapes(f"{at}.attn.qkv", width, 3 * width)
        shapes |= linear_shapes(f"{at}.attn.proj", width, width)
        shapes |= linear_shapes(f"{at}.mlp.fc1", width, 4 * width)
        shapes |= linear_shapes(f"{at}.mlp.fc2", 4 * width, width)
    return shapes | norm_shapes("norm", width)


def dino_shapes(patches: int, width: int = 384) -> dict[str, tuple[int, ...]]:
    tokens = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + patches, width)}
    stem = {"patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,)}
    return {**tokens, **stem, **vit_blocks(width)}


def ics_shapes(width: int = 384) -> dict[str, tuple[int, ...]]:
    shapes = dino_shapes(8, width)
    shapes["patch_embed.proj.weight"] = (width, 64, 8, 8)
    shapes |= {f"patch_embed.conv.{i}.weight": (64, 64, 3, 3) for i in (3, 6)}
    shapes["patch_embed.conv.0.weight"] = (64, 3, 7, 7)
    for i in (1, 4):
        shapes |= norm_shapes(f"patch_embed.conv.{i}.IN", 32)
        shapes |= batch_norm_shapes(f"patch_embed.conv.{i}.BN", 32)
    return shapes | batch_norm_shapes("patch_embed.conv.7", 64)


def pass_shapes(width: int = 384) -> dict[str, tuple[int, ...]]:
    tokens = ("cls_token", "part_token1", "part_token2", "part_token3")
    places = ("cls_pos", "part1_pos", "part2_pos", "part3_pos")
    return {**dino_shapes(7, width), **dict.fromkeys((*tokens, *places), (1, 1, width))}


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | float = 0.0) -> Tensor:
    """Softmax attention of (b, n, d), head by head."""
    out = []
    for part in zip(*(value.chunk(heads, dim=2) for value in (q, k, v)), strict=True):
        head = len(out)
        weight = part[0] @ part[1].transpose(1, 2) / part[0].shape[2] ** 0.5
        weight = weight + (bias[head] if isinstance(bias, Tensor) else bias)
        out.append(weight.softmax(dim=2) @ part[2])
    return torch.cat(out, dim=2)


def norm(x: Tensor, state: State, name: str, eps: float = 1e-6) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def run_blocks(x: Tensor, state: State, heads: int = 6) -> Tensor:
    for block in range(12):
        at = f"blocks.{block}"
        q, k, v = linear(norm(x, state, f"{at}.norm1"), state, f"{at}.attn.qkv").chunk(3, dim=2)
        x = x + linear(attention(q, k, v, heads), state, f"{at}.attn.proj")
        inner = F.gelu(linear(norm(x, state, f"{at}.norm2"), state, f"{at}.mlp.fc1"))
        x = x + linear(inner, state, f"{at}.mlp.fc2")
    return norm(x, state, "norm")


def patches(x: Tensor, state: State, edge: int) -> Tensor:
    stem = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], edge)
    return stem.flatten(2).transpose(1, 2)


def plain_dino(state: State, x: Tensor) -> Tensor:
    first = state["cls_token"].expand(len(x), -1, -1)
    return run_blocks(torch.cat((first, patches(x, state, 16)), 1) + state["pos_embed"], state)[:, 0]


def plain_ics(state: State, x: Tensor) -> Tensor:
    def batch_norm(x: Tensor, name: str) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    for place, stride, pad in ((0, 2, 3), (3, 1, 1), (6, 1, 1)):
        x = F.conv2d(x, state[f"patch_embed.conv.{place}.weight"], None, stride, pad)
        name = f"patch_embed.conv.{place + 1}"
        if place == 6:
            x = batch_norm(x, name)
        else:
            half = F.instance_norm(
                x[:, :32], weight=state[f"{name}.IN.weight"], bias=state[f"{name}.IN.bias"]
            )
            x = torch.cat((half, batch_norm(x[:, 32:], f"{name}.BN")), dim=1)
        x = F.relu(x)
    first = state["cls_token"].expand(len(x), -1, -1)
    return run_blocks(torch.cat((first, patches(x, state, 8)), 1) + state["pos_embed"], state)[:, 0]


def plain_pass(state: State, x: Tensor) -> Tensor:
    tokens = ("cls_token", "part_token1", "part_token2", "part_token3")
    first = torch.cat([state[name].expand(len(x), -1, -1) for name in tokens], dim=1)
    places = ("cls_pos", "part1_pos", "part2_pos", "part3_pos", "pos_embed")
    x = torch.cat((first, patches(x, state, 16)), 1) + torch.cat([state[name] for name in places], dim=1)
    x = run_blocks(x, state)
    return torch.cat((x[:, 0], (x[:, 1] + x[:, 2] + x[:, 3]) / 3), dim=1)


def clip_shapes(patches: int, width: int = 768) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (1 + patches, width),
        "visual.conv1.weight": (width, 3, 16, 16),
        "visual.proj": (width, 512),
        "text_projection": (512, 512),
        "positional_embedding": (77, 512),
        "logit_scale": (),
    }
    shapes |= norm_shapes("visual.ln_pre", width) | norm_shapes("visual.ln_post", width)
    shapes |= {"token_embedding.weight": (100, 512), "transformer.resblocks.0.ln_1.weight": (512,)}
    for block in range(12):
        at = f"visual.transformer.resblocks.{block}"
        shapes |= norm_shapes(f"{at}.ln_1", width) | norm_shapes(f"{at}.ln_2", width)
        shapes |= {f"{at}.attn.in_proj_weight": (3 * width, width), f"{at}.attn.in_proj_bias": (3 * width,)}
        shapes |= linear_shapes(f"{at}.attn.out_proj", width, width)
        shapes |= linear_shapes(f"{at}.mlp.c_fc", width, 4 * width)
        shapes |= linear_shapes(f"{at}.mlp.c_proj", 4 * width, width)
    return shapes


def plain_clip(state: State, x: Tensor) -> Tensor:
    tower = {name[7:]: value for name, value in state.items() if name.startswith("visual.")}
    x = F.conv2d(x, tower["conv1.weight"], stride=16).flatten(2).transpose(1, 2)
    x = torch.cat((tower["class_embedding"].expand(len(x), 1, -1), x), dim=1) + tower["positional_embedding"]
    x = norm(x, tower, "ln_pre", 1e-5)
    for block in range(12):
        at = f"transformer.resblocks.{block}"
        inner = norm(x, tower, f"{at}.ln_1", 1e-5)
        q, k, v = F.linear(inner, tower[f"{at}.attn.in_proj_weight"], tower[f"{at}.attn.in_proj_bias"]).chunk(
            3, 2
        )
        x = x + linear(attention(q, k, v, 12), tower, f"{at}.attn.out_proj")
        inner = linear(norm(x, tower, f"{at}.ln_2", 1e-5), tower, f"{at}.mlp.c_fc")
        x = x + linear(inner * torch.sigmoid(1.702 * inner), tower, f"{at}.mlp.c_proj")
    return norm(x, tower, "ln_post", 1e-5)[:, 0]


def solider_shapes() -> dict[str, tuple[int, ...]]:
    width = 96
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.projection.weight": (width, 3, 4, 4)}
    shapes |= {"patch_embed.projection.bias": (width,), **norm_shapes("patch_embed.norm", width)}
    for stage, (depth, heads) in enumerate(zip((2, 2, 6, 2), (3, 6, 12, 24), strict=True)):
        for block in range(depth):
            at = f"stages.{stage}.blocks.{block}"
            shapes |= norm_shapes(f"{at}.norm1", width) | norm_shapes(f"{at}.norm2", width)
            shapes |= {f"{at}.attn.w_msa.relative_position_bias_table": (169, heads)}
            shapes |= {f"{at}.attn.w_msa.relative_position_index": (49, 49)}
            shapes |= linear_shapes(f"{at}.attn.w_msa.qkv", width, 3 * width)
            shapes |= linear_shapes(f"{at}.attn.w_msa.proj", width, width)
            shapes |= linear_shapes(f"{at}.ffn.layers.0.0", width, 4 * width)
            shapes |= linear_shapes(f"{at}.ffn.layers.1", 4 * width, width)
        shapes |= norm_shapes(f"norm{stage}", width)
        if stage < 3:
            shapes |= norm_shapes(f"stages.{stage}.downsample.norm", 4 * width)
            shapes |= {f"stages.{stage}.downsample.reduction.weight": (2 * width, 4 * width)}
            width *= 2
        for kind in "wb":
            shapes |= linear_shapes(f"semantic_embed_{kind}.{stage}", 2, width)
    return shapes


def window_attention(x: Tensor, state: State, at: str, heads: int, shift: int) -> Tensor:
    """Shifted windows of 7 x 7 over (b, h, w, c), image by image and window by window."""
    b, h, w, c = x.shape
    x = F.pad(x, (0, 0, 0, -w % 7, 0, -h % 7))
    tall, wide = x.shape[1:3]
    x = x.roll((-shift, -shift), (1, 2))
    table = state[f"{at}.relative_position_bias_table"]
    rows, columns = torch.arange(7).repeat_interleave(7), torch.arange(7).repeat(7)
    index = (rows[:, None] - rows + 6) * 13 + (columns[:, None] - columns + 6)
    bias = table[index].permute(2, 0, 1)
    out = torch.zeros_like(x)

    def zone(place: int, edge: int) -> int:
        return 0 if place < edge - 7 or not shift else (1 if place < edge - shift else 2)

    for top in range(0, tall, 7):
        for left in range(0, wide, 7):
            window = x[:, top : top + 7, left : left + 7].reshape(b, 49, c)
            zones = torch.tensor(
                [3 * zone(top + i, tall) + zone(left + j, wide) for i in range(7) for j in range(7)]
            )
            mask = -100.0 * (zones[:, None] != zones)
            q, k, v = linear(window, state, f"{at}.qkv").chunk(3, dim=2)
            found = linear(attention(q, k, v, heads, bias + mask), state, f"{at}.proj")
            out[:, top : top + 7, left : left + 7] = found.reshape(b, 7, 7, c)
    return out.roll((shift, shift), (1, 2))[:, :h, :w]


def plain_solider(state: State, x: Tensor) -> Tensor:
    x = F.conv2d(x, state["patch_embed.projection.weight"], state["patch_embed.projection.bias"], 4)
    x = norm(x.permute(0, 2, 3, 1), state, "patch_embed.norm", 1e-5)
    semantic = torch.tensor([SEMANTIC_WEIGHT, 1 - SEMANTIC_WEIGHT])
    for stage, (depth, heads) in enumerate(zip((2, 2, 6, 2), (3, 6, 12, 24), strict=True)):
        for block in range(depth):
            at = f"stages.{stage}.blocks.{block}"
            inner = norm(x, state, f"{at}.norm1", 1e-5)
            x = x + window_attention(inner, state, f"{at}.attn.w_msa", heads, 3 * (block % 2))
            inner = F.gelu(linear(norm(x, state, f"{at}.norm2", 1e-5), state, f"{at}.ffn.layers.0.0"))
            x = x + linear(inner, state, f"{at}.ffn.layers.1")
        if stage == 3:
            break
        b, h, w, _ = x.shape
        x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2)).permute(0, 3, 1, 2)
        merged = F.unfold(x, 2, stride=2).transpose(1, 2).reshape(b, (h + 1) // 2, (w + 1) // 2, -1)
        merged = norm(merged, state, f"stages.{stage}.downsample.norm", 1e-5)
        x = F.linear(merged, state[f"stages.{stage}.downsample.reduction.weight"])
        scale = F.softplus(linear(semantic, state, f"semantic_embed_w.{stage}"))
        x = x * scale + linear(semantic, state, f"semantic_embed_b.{stage}")
    return norm(x, state, "norm3", 1e-5).mean((1, 2))


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


CASES: dict[str, tuple[str, Callable[[], dict[str, tuple[int, ...]]], Any, str | None]] = {
    "dino": (VIT, lambda: dino_shapes(8), plain_dino, None),
    "ics": ("vit_small_ics", ics_shapes, plain_ics, "half"),
    "pass": ("pass_vit_small", pass_shapes, plain_pass, "half"),
    "solider": ("solider_swin_tiny", solider_shapes, plain_solider, "half"),
    "clip": (CLIP, lambda: clip_shapes(8), plain_clip, "clip"),
}


def network_of(case: str) -> tuple[Network, State]:
    arch, shapes, _, _ = CASES[case]
    wanted = shapes()
    if case == "pass":  # its table lacks the row of the class token: 4 x 2 patches
        wanted["pos_embed"] = (1, 8, 384)
    return build(arch, size=SIZE, seed=0).eval(), numbers(wanted)


@pytest.mark.parametrize("case", CASES)
def test_it_does_what_the_source_does_and_refuses_the_rest(case: str) -> None:
    network, state = network_of(case)
    _, _, plain, norm_name = CASES[case]
    prefix = "" if case == "clip" else "backbone."
    heads = {} if case == "clip" else {"head.mlp.0.weight": torch.zeros(3, 3)}
    given = {**prefixed(state, prefix), **heads}
    said = load_into(network, given, "w.pth")
    assert said == (PIXEL_NORMS[norm_name] if norm_name else None)
    with torch.no_grad():
        found = network.gap(network._maps(network.base(images()), SIZE[0]))
        torch.testing.assert_close(found, plain(state, images()), atol=1e-4, rtol=1e-4)

    key = next(name for name in given if name.endswith(("fc1.weight", "c_fc.weight", "layers.0.0.weight")))
    before = network.state_dict()
    for change, words in (
        ({**given, f"{key}x": given[key]}, "1 unexpected"),
        ({name: value for name, value in given.items() if name != key}, "1 missing"),
        ({**given, key: given[key][:-1]}, "1 of another shape"),
    ):
        with pytest.raises(ModelError, match=rf"w\.pth: these weights do not fit.*{words}"):
            load_into(network, change, "w.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_flat_and_wrapped_files_are_the_same(tmp_path: Path) -> None:
    state = numbers(ics_shapes())
    torch.save(state, tmp_path / "flat.pth")
    options = argparse.Namespace(arch="vit_small", lr=0.0005)
    teacher = prefixed(state, "module.backbone.") | {"module.head.last_layer.weight_g": torch.ones(4, 1)}
    torch.save({"student": {}, "teacher": teacher, "epoch": 99, "args": options}, tmp_path / "dino.pth")
    first, second = (
        build("vit_small_ics", size=SIZE, weights=tmp_path / name).eval() for name in ("flat.pth", "dino.pth")
    )
    assert torch.equal(first(images()), second(images()))
    assert first.norm == second.norm == PIXEL_NORMS["half"]
    assert detect(state).arch == "vit_small_ics"


def test_positions_are_resized_from_the_declared_grid_or_a_square() -> None:
    for patches_, grid in ((128, (16, 8)), (192, (24, 8)), (196, (14, 14)), (8, GRID)):
        network = build(VIT, size=SIZE, seed=0)
        state = numbers(dino_shapes(patches_))
        load_into(network, state, "w.pth")
        expected = state["pos_embed"]
        if grid != GRID:
            expected = resample_abs_pos_embed(expected, [*GRID], [*grid], 1)
        assert torch.equal(network.base.pos_embed, expected)
        assert torch.equal(network.base.pos_embed[:, 0], state["pos_embed"][:, 0])
    assert torch.equal(network.base.pos_embed, state["pos_embed"])  # the same grid changes nothing
    # As many patches as a square has are no reason to take the square for the network's own grid.
    network, state = build(VIT, size=(448, 112), seed=0), numbers(dino_shapes(196))
    load_into(network, state, "w.pth")
    expected = resample_abs_pos_embed(state["pos_embed"], [28, 7], [14, 14], 1)
    assert torch.equal(network.base.pos_embed, expected)
    load_into(network, state, "w.pth", (448, 112))
    assert torch.equal(network.base.pos_embed, state["pos_embed"])
    with pytest.raises(ModelError, match=r"pos_embed is of 90 patches: not 16 x 8, 24 x 8, no square"):
        load_into(network, numbers(dino_shapes(90)), "w.pth")


def test_a_ramp_stays_a_ramp() -> None:
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(8.0), indexing="ij")
    state, network = numbers(dino_shapes(128)), build(VIT, size=(512, 128), seed=0)
    state["pos_embed"][0, 1:, :2] = torch.stack((rows, columns), dim=-1).reshape(128, 2)
    load_into(network, state, "w.pth")
    found = network.base.pos_embed.detach()[0, 1:].reshape(32, 8, -1)
    torch.testing.assert_close(found[4:-4, :, 0], (torch.arange(32.0)[4:-4, None].expand(-1, 8) - 0.5) / 2)
    torch.testing.assert_close(found[..., 1], torch.arange(8.0).expand(32, 8))


def test_clip_needs_its_own_activation_and_equals_timm() -> None:
    import timm

    state = numbers(clip_shapes(8))
    other = build("timm:vit_base_patch16_clip_224", size=SIZE)
    with pytest.raises(ModelError, match="QuickGELU: take timm:vit_base_patch16_clip_quickgelu_224"):
        load_into(other, state, "clip.safetensors")
    network = build(CLIP, size=SIZE).eval()
    load_into(network, {name: value.half() for name, value in state.items()}, "clip.safetensors")
    reference = timm.create_model("vit_base_patch16_clip_quickgelu_224", img_size=SIZE, num_classes=0).eval()
    reference.load_state_dict(network.base.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network.base(images())[:, 0], reference(images()), atol=1e-4, rtol=1e-4)


def test_dinov2_equals_timm() -> None:
    import timm

    size = (56, 28)
    reference = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=size, num_classes=0).eval()
    network = build("timm:vit_small_patch14_reg4_dinov2", size=size).eval()
    load_into(network, reference.state_dict(), "dinov2")
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(network.base(x)[:, 0], reference(x), atol=1e-4, rtol=1e-4)


def resnet_names(network: Network, prefix: str) -> State:
    places = ["conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4"]
    named = {}
    for name, value in network.base.state_dict().items():
        number, _, tail = name.partition(".")
        named[f"{prefix}{places[int(number)]}.{tail}"] = value
    return named


def test_fast_reid(tmp_path: Path) -> None:
    source = build("resnet18", seed=1).eval()
    torch.nn.init.normal_(source.feat_bn.weight)
    state = resnet_names(source, "backbone.")
    state |= {f"heads.bottleneck.0.{name}": value for name, value in source.feat_bn.state_dict().items()}
    state |= {"heads.pool_layer.p": source.gap.p.detach(), "heads.weight": torch.randn(10, 512)}
    state |= {
        "pixel_mean": torch.tensor([127.5, 102.0, 51.0]).reshape(1, 3, 1, 1),
        "pixel_std": torch.full((1, 3, 1, 1), 51.0),
    }
    torch.save({"model": state, "iteration": 3}, tmp_path / "model_best.pth")
    opened = open_model(tmp_path / "model_best.pth").eval()
    assert torch.equal(opened(images()), source(images()))
    torch.testing.assert_close(torch.tensor(opened.norm.mean), torch.tensor([0.5, 0.4, 0.2]))
    assert isinstance(opened.norm, PixelNorm)
    for change, words in (
        ({"heads.bottleneck.1.weight": torch.ones(3)}, "unexpected: heads.bottleneck.1.weight"),
        ({"backbone.NL_2.0.g.weight": torch.ones(3)}, "unexpected: backbone.NL_2.0.g.weight"),
    ):
        with pytest.raises(ModelError, match=words):
            load_into(opened, state | change, "x")


def test_luperson_resnet_and_its_training() -> None:
    source = build("resnet18", seed=1)
    flat = resnet_names(source, "")
    trained = moco(source) | {"module.encoder_q.fc.0.weight": torch.zeros(4, 4)}
    for state in (flat, trained):
        network = build("resnet18", seed=3)
        load_into(network, state, "lup.pth")
        assert torch.equal(network.base[0].weight, source.base[0].weight)
        assert torch.equal(network.base[7][1].conv2.weight, source.base[7][1].conv2.weight)


def moco(source: Network) -> State:
    """A ResNet as MoCo saves it in training: the network, its average, and the queue."""
    average = resnet_names(build("resnet18", seed=2), "module.encoder_k.")
    return resnet_names(source, "module.encoder_q.") | average | {"module.queue": torch.zeros(4, 4)}


@pytest.mark.parametrize("layout", ["fast-reid", "flat", "moco", "osnet"])
def test_every_layout_refuses_what_does_not_fit(layout: str) -> None:
    """A key too much, one missing, one of another shape: by its name, and the network is as it was."""
    if layout == "osnet":
        source = build("osnet_x0_25", seed=1)
        state = dict(source.base.state_dict())
        state |= {f"fc.{name}": value for name, value in source.neck.state_dict().items()}
        own, ours, more = "conv2.0.conv1.conv.weight", "base.conv2.0.conv1.conv.weight", "conv9.weight"
    else:
        source = build("resnet18", seed=1)
        prefix = {"fast-reid": "backbone.", "flat": "", "moco": "module.encoder_q."}[layout]
        state = moco(source) if layout == "moco" else resnet_names(source, prefix)
        own, ours, more = f"{prefix}layer2.0.conv1.weight", "base.5.0.conv1.weight", "layer9.0.weight"
        if layout == "fast-reid":
            neck = {
                f"heads.bottleneck.0.{name}": value for name, value in source.feat_bn.state_dict().items()
            }
            state |= neck | {"heads.pool_layer.p": torch.full((1,), 3.0)}
    prefix = own.partition("conv2.0" if layout == "osnet" else "layer2")[0]
    network = build(source.arch, seed=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_into(network, state, "whole")  # fits as it is
    network.load_state_dict(before)
    for wrong, words in (
        (state | {f"{prefix}{more}": torch.ones(2)}, rf"unexpected: \S*{more}"),
        ({name: value for name, value in state.items() if name != own}, f"missing: {ours}"),
        (state | {own: torch.ones(2, 2)}, rf"another shape: {ours} \(2, 2\)"),
    ):
        with pytest.raises(ModelError, match=words):
            load_into(network, wrong, "wrong")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_plain_resnet_is_no_ibn() -> None:
    plain = resnet_names(build("resnet50", seed=1), "")
    with pytest.raises(ModelError, match=r"missing: base\.4\.0\.bn1\.IN\.weight.*unexpected: base\.4"):
        load_into(build("resnet_ibn50a"), plain, "resnet50.pth")


def test_torchreid_osnet(tmp_path: Path) -> None:
    source = build("osnet_x0_25", seed=1).eval()
    state = {f"module.{name}": value for name, value in source.base.state_dict().items()}
    state |= {f"module.fc.{name}": value for name, value in source.neck.state_dict().items()}
    state |= {"module.classifier.weight": torch.zeros(10, 512), "module.classifier.bias": torch.zeros(10)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "osnet.pth.tar")
    opened = open_model(tmp_path / "osnet.pth.tar").eval()
    assert opened.arch == "osnet_x0_25"
    torch.testing.assert_close(opened(images()), source(images()))
    with torch.no_grad():
        found = opened.neck(opened.gap(opened.base(images())))
        torch.testing.assert_close(found, plain_osnet(state, images()), atol=1e-5, rtol=1e-4)
    for wrong, words in (
        ({"module.conv2.0.gate.fc3.weight": torch.ones(2)}, "unexpected: base.conv2.0.gate.fc3"),
        ({"module.conv5.conv.weight": torch.ones(2)}, "another shape: base.conv5.conv.weight"),
    ):
        torch.save(state | wrong, tmp_path / "wrong.pth")
        with pytest.raises(ModelError, match=words):
            build("osnet_x0_25", weights=tmp_path / "wrong.pth")


def plain_osnet(state: State, x: Tensor) -> Tensor:
    """The paper's network, read from torchreid's names, in evaluation."""
    own = {name.removeprefix("module."): value for name, value in state.items()}

    def batch_norm(x: Tensor, name: str) -> Tensor:
        parts = (own[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def conv(x: Tensor, name: str, stride: int = 1, pad: int = 0) -> Tensor:
        return batch_norm(F.conv2d(x, own[f"{name}.conv.weight"], None, stride, pad), f"{name}.bn")

    def light(x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, own[f"{name}.conv1.weight"])
        x = F.conv2d(x, own[f"{name}.conv2.weight"], None, 1, 1, 1, len(x[0]))
        return F.relu(batch_norm(x, f"{name}.bn"))

    def gate(x: Tensor, name: str) -> Tensor:
        weight = F.relu(F.conv2d(x.mean((2, 3), True), own[f"{name}.fc1.weight"], own[f"{name}.fc1.bias"]))
        return x * torch.sigmoid(F.conv2d(weight, own[f"{name}.fc2.weight"], own[f"{name}.fc2.bias"]))

    def block(x: Tensor, name: str) -> Tensor:
        narrow = F.relu(conv(x, f"{name}.conv1"))
        total = gate(light(narrow, f"{name}.conv2a"), f"{name}.gate")
        for letter, count in (("b", 2), ("c", 3), ("d", 4)):
            stream = narrow
            for i in range(count):
                stream = light(stream, f"{name}.conv2{letter}.{i}")
            total = total + gate(stream, f"{name}.gate")
        shortcut = conv(x, f"{name}.downsample") if f"{name}.downsample.conv.weight" in own else x
        return F.relu(conv(total, f"{name}.conv3") + shortcut)

    x = F.max_pool2d(F.relu(conv(x, "conv1", 2, 3)), 3, 2, 1)
    for stage in ("conv2", "conv3", "conv4"):
        x = block(block(x, f"{stage}.0"), f"{stage}.1")
        if stage != "conv4":
            x = F.avg_pool2d(F.relu(conv(x, f"{stage}.2.0")), 2, 2)
    x = F.relu(conv(x, "conv5")).mean((2, 3))
    return F.relu(batch_norm(F.linear(x, own["fc.0.weight"], own["fc.0.bias"]), "fc.1"))


@pytest.mark.parametrize("name", ["levit_128s", "hgnetv2_b0", "vit_pe_core_tiny_patch16_384"])
def test_the_classifier_of_a_file_is_left_out_and_what_it_stands_on_is_not(name: str) -> None:
    import timm

    size = family.architecture(name).fetched_size
    whole, network = timm.create_model(name).state_dict(), build(f"timm:{name}", size=size, seed=0)
    load_into(network, whole, "w.pth")
    own = network.base.state_dict()
    assert own.keys() < whole.keys()
    assert all(torch.equal(own[key], whole[key]) for key in own)
