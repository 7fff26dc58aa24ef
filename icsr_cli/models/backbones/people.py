"""ViTs trained on unlabelled people: TransReID-SSL's with a convolutional stem, and PASS's with part tokens.

Both are timm's ViT but for that. The plain ones (LUPerson, DINO) are ``timm:vit_small_patch16_224``.

- TransReID-SSL (Luo et al., arXiv 2111.12084): the ICS stem, three convolutions of stride 2 in all, two of
  them with instance and batch normalisation, then patches of 8 x 8 of what they give.
- PASS (Zhu et al., arXiv 2203.03931): three tokens learn a part of the body each, beside the class token. The
  features are the class token and the mean of the parts, side by side.
"""

from functools import partial

import torch
from torch import Tensor, nn

from icsr_cli.models.backbones import OWN, Architecture, Backbone, Layout, Make, State
from icsr_cli.models.backbones.resnet_ibn import InstanceBatchNorm
from icsr_cli.models.backbones.timm import create
from icsr_cli.models.sources import Source
from icsr_cli.types import PIXEL_NORMS, Size

_WIDTHS = {"small": 384, "base": 768}
_PATCH = 16
_PARTS = 3
_HALF = PIXEL_NORMS["half"]
#: What a checkpoint of DINO puts before the names; the heads of its training are left out.
_PREFIX = r"(?:module\.)?(?:backbone\.)?"
_NAMES: list[tuple[str, str | None]] = [
    (r"(?:module\.)?head\.", None),
    (rf"{_PREFIX}(?:head|fc)\.", None),
    (_PREFIX, "base."),
]


class _Stem(nn.Module):
    """Float (b, 3, h, w) to patches (b, h w / 256, width); children as in the published weights."""

    def __init__(self, size: Size, width: int) -> None:
        super().__init__()
        inner = 64
        self.patch_size = (_PATCH, _PATCH)
        self.grid_size = (size[0] // _PATCH, size[1] // _PATCH)
        self.conv = nn.Sequential(
            nn.Conv2d(3, inner, 7, 2, 3, bias=False),
            InstanceBatchNorm(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, 1, 1, bias=False),
            InstanceBatchNorm(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, 1, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
        )
        self.proj = nn.Conv2d(inner, width, _PATCH // 2, _PATCH // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches, row by row."""
        found: Tensor = self.proj(self.conv(x))
        return found.flatten(2).transpose(1, 2)


def _ics(kind: str, wish: Make) -> Backbone:
    network = create(f"vit_{kind}_patch16_224", wish)
    network.patch_embed = _Stem(wish.size, _WIDTHS[kind])
    return Backbone(network, _WIDTHS[kind], "tokens", 1, _PATCH, sized=True, class_token=True)


def _pass(kind: str, wish: Make) -> Backbone:
    network = create(f"vit_{kind}_patch16_224", wish, reg_tokens=_PARTS)
    prefix = 1 + _PARTS
    return Backbone(
        network, _WIDTHS[kind], "tokens", prefix, _PATCH, parts=_PARTS, sized=True, class_token=True
    )


def _join_tokens(state: State) -> State:
    """Join the part tokens, and their positions and the class token's with those of the patches."""
    state = dict(state)
    tokens = [f"base.part_token{part}" for part in range(1, _PARTS + 1)]
    places = ["base.cls_pos", *(f"base.part{part}_pos" for part in range(1, _PARTS + 1)), "base.pos_embed"]
    for names, joined in ((tokens, "base.reg_token"), (places, "base.pos_embed")):
        if all(name in state and state[name].dim() == 3 for name in names):
            parts = [state.pop(name) for name in names]
            if len({part.shape[2] for part in parts}) == 1:
                state[joined] = torch.cat(parts, dim=1)
            else:  # of another shape: the reader lists them
                state |= dict(zip(names, parts, strict=True))
    return state


_SSL = Layout("TransReID-SSL", rf"{_PREFIX}patch_embed\.conv\.", _NAMES, norm=lambda state: _HALF)
_PASS = Layout("PASS", rf"{_PREFIX}part_token\d$", _NAMES, _join_tokens, lambda state: _HALF)
_SSL_PAGE = Source("https://github.com/damo-cv/TransReID-SSL", "see its page (LUPerson)")
_PASS_PAGE = Source("https://github.com/CASIA-IVA-Lab/PASS-reID", "see its page (LUPerson)")
_GRIDS = ((16, 8), (24, 8), (14, 14))
_vit = partial(Architecture, pooling="cls", norm=_HALF, has_drop_path=True, patch=_PATCH, grids=_GRIDS)

ARCHITECTURES = {
    name.format(kind): _vit(partial(make, kind), (OWN, layout), pages={"LUPerson": page}, paper=paper)
    for name, make, layout, page, paper in (
        ("vit_{}_ics", _ics, _SSL, _SSL_PAGE, "arXiv 2111.12084"),
        ("pass_vit_{}", _pass, _PASS, _PASS_PAGE, "arXiv 2203.03931"),
    )
    for kind in _WIDTHS
}
