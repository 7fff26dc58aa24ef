"""SOLIDER's Swin (Chen et al., arXiv 2303.17602): trained on unlabelled people, with a semantic weight.

After each merging of patches the map is scaled and shifted by what two linear layers make of (w, 1 - w); w is
0.2, as published for re-identification. The rest is timm's Swin, but for the order of padding
and shifting of windows, which matters where a map is no multiple of 7.
"""

import re
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from icsr_cli.models.backbones import OWN, Architecture, Backbone, Layout, Make, State
from icsr_cli.models.backbones.timm import create
from icsr_cli.models.sources import Source
from icsr_cli.types import PIXEL_NORMS

_KINDS = {"tiny": 96, "small": 96, "base": 128}
SEMANTIC_WEIGHT = 0.2
_HALF = PIXEL_NORMS["half"]


class _Modulated(nn.Module):
    """Patches merged, then scaled and shifted by the semantic weight: x * softplus(W[w, 1 - w]) + b."""

    semantic: Tensor

    def __init__(self, merge: nn.Module, width: int) -> None:
        super().__init__()
        self.merge = merge
        self.scale, self.shift = nn.Linear(2, width), nn.Linear(2, width)
        for layer in (self.scale, self.shift):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        both = torch.tensor([SEMANTIC_WEIGHT, 1 - SEMANTIC_WEIGHT])
        self.register_buffer("semantic", both, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Float (b, h, w, c) to (b, h / 2, w / 2, 2 c)."""
        merged: Tensor = self.merge(x)
        modulated: Tensor = merged * softplus(self.scale(self.semantic)) + self.shift(self.semantic)
        return modulated


@cache
def _padded_block() -> type[nn.Module]:
    """Give timm's block, but that it pads to whole windows before it shifts, not after, as published."""
    from timm.models.swin_transformer import SwinTransformerBlock

    class PaddedBlock(SwinTransformerBlock):
        def _attn(self, x: Tensor) -> Tensor:
            _, h, w, _ = x.shape
            rows, columns = self.window_size
            padded = pad(x, (0, 0, 0, -w % columns, 0, -h % rows))
            found: Tensor = super()._attn(padded)  # type: ignore[no-untyped-call]
            return found[:, :h, :w]

    return PaddedBlock


def _solider(kind: str, wish: Make) -> Backbone:
    network = create(f"swin_{kind}_patch4_window7_224", wish)
    width = _KINDS[kind]
    layers = network.get_submodule("layers")
    for number, stage in enumerate(layers.children()):
        for block in stage.get_submodule("blocks").children():
            block.__class__ = _padded_block()
        if number:
            stage.downsample = _Modulated(stage.get_submodule("downsample"), width << number)
    return Backbone(network, 8 * width, "last", sized=True)


def _turn_merging(state: State) -> State:
    """Put the four patches that are merged into timm's order.

    The published layer unfolds: channel, row, column. Timm's order is column, row, channel.
    """
    turned = dict(state)
    for name, value in state.items():
        if re.search(r"downsample\.merge\.(norm|reduction)\.", name) and value.shape[-1] % 4 == 0:
            parts = value.reshape(*value.shape[:-1], -1, 2, 2)
            turned[name] = parts.transpose(-3, -1).reshape(value.shape)
    return turned


_PREFIX = r"(?:module\.)?(?:backbone\.)?(?:module\.)?"
_BLOCK = rf"{_PREFIX}stages\.(\d)\.blocks\.(\d+)\."
_NAMES: list[tuple[str, str | None]] = [
    (r"(?:module\.)?head\.", None),
    # What the features do not pass: norms of the maps before, the last stage's semantic layers, an index.
    (rf"{_PREFIX}norm[0-2]\.", None),
    (rf"{_PREFIX}semantic_embed_[wb]\.3\.", None),
    (rf"{_BLOCK}attn\.w_msa\.relative_position_index$", None),
    (rf"{_PREFIX}norm3\.", "base.norm."),
    (rf"{_PREFIX}patch_embed\.projection\.", "base.patch_embed.proj."),
    (rf"{_PREFIX}patch_embed\.norm\.", "base.patch_embed.norm."),
    (rf"{_BLOCK}attn\.w_msa\.", r"base.layers.\1.blocks.\2.attn."),
    (rf"{_BLOCK}ffn\.layers\.0\.0\.", r"base.layers.\1.blocks.\2.mlp.fc1."),
    (rf"{_BLOCK}ffn\.layers\.1\.", r"base.layers.\1.blocks.\2.mlp.fc2."),
    (_BLOCK, r"base.layers.\1.blocks.\2."),
    *((rf"{_PREFIX}stages\.{i}\.downsample\.", f"base.layers.{i + 1}.downsample.merge.") for i in range(3)),
    *((rf"{_PREFIX}semantic_embed_w\.{i}\.", f"base.layers.{i + 1}.downsample.scale.") for i in range(3)),
    *((rf"{_PREFIX}semantic_embed_b\.{i}\.", f"base.layers.{i + 1}.downsample.shift.") for i in range(3)),
]
_LAYOUT = Layout("SOLIDER", rf"{_PREFIX}semantic_embed_w\.", _NAMES, _turn_merging, lambda state: _HALF)
_PAGE = Source("https://github.com/tinyvision/SOLIDER", "see its page (LUPerson)")

ARCHITECTURES = {
    f"solider_swin_{kind}": Architecture(
        partial(_solider, kind),
        (OWN, _LAYOUT),
        pages={"LUPerson": _PAGE},
        pooling="avg",
        norm=_HALF,
        has_drop_path=True,
        paper="arXiv 2303.17602",
    )
    for kind in _KINDS
}
