"""ResNet-18 to 152 (He et al., arXiv 1512.03385), with stride 1 in the last stage."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from icsr_cli.models.backbones import Architecture, Backbone, Layout, Make
from icsr_cli.models.sources import Source
from icsr_cli.types import PixelNorm

if TYPE_CHECKING:  # it takes seconds, and the names of networks are asked for by every command
    from torchvision.models import ResNet

#: Kind of block, blocks of each stage, and the first weights that torchvision published, which the method's
#: numbers stand on.
_KINDS = {
    "resnet18": ("BasicBlock", (2, 2, 2, 2), "resnet18-f37072fd.pth"),
    "resnet34": ("BasicBlock", (3, 4, 6, 3), "resnet34-b627a593.pth"),
    "resnet50": ("Bottleneck", (3, 4, 6, 3), "resnet50-0676ba61.pth"),
    "resnet101": ("Bottleneck", (3, 4, 23, 3), "resnet101-63fe2227.pth"),
    "resnet152": ("Bottleneck", (3, 8, 36, 3), "resnet152-394f9c45.pth"),
}


def layers_of(network: ResNet) -> Backbone:
    """Take the layers before the classifier, with stride 1 in the last stage, whose parameters stay."""
    for layer in network.layer4.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
    layers = nn.Sequential(*list(network.children())[:-2])
    return Backbone(layers, network.fc.in_features)


def _resnet(block: str, counts: tuple[int, ...], wish: Make) -> Backbone:
    from torchvision.models import resnet

    return layers_of(resnet.ResNet(getattr(resnet, block), list(counts), num_classes=1))


def numbered(prefix: str = "") -> list[tuple[str, str | None]]:
    """Give the renamings of torchvision's names, behind ``prefix``, to the numbers of the published ones."""
    return [
        (rf"{prefix}conv1\.", "base.0."),
        (rf"{prefix}bn1\.", "base.1."),
        *((rf"{prefix}layer{stage}\.", f"base.{stage + 3}.") for stage in range(1, 5)),
    ]


#: Classifiers are left out.
_HEADS: list[tuple[str, str | None]] = [(r"fc\.", None), ("classifier", None)]


def _of_fast_reid(state: Mapping[str, Tensor]) -> PixelNorm | None:
    """Read the mean and standard deviation, from 0 to 255, that fast-reid keeps among its weights."""
    if not {"pixel_mean", "pixel_std"} <= state.keys():
        return None
    mean, std = (tuple((state[f"pixel_{part}"].flatten() / 255).tolist()) for part in ("mean", "std"))
    try:
        return PixelNorm(mean, std)
    except ValueError:
        return None


_FAST_REID: list[tuple[str, str | None]] = [
    *numbered(r"backbone\."),
    (r"heads\.pool_layer\.p$", "gap.p"),
    (r"heads\.bottleneck\.0\.", "feat_bn."),
    (r"heads\.(?:classifier\.)?weight$", None),
    (r"pixel_(?:mean|std)$", None),
]
#: MoCo's, as LUPerson's ResNet-50 was trained: the query's encoder is the network.
_MOCO: list[tuple[str, str | None]] = [
    (r"(?:module\.)?encoder_q\.(?:fc|classifier)", None),
    *numbered(r"(?:module\.)?encoder_q\."),
    (r"(?:module\.)?(?:encoder_k|queue|id_queue)", None),
]

LAYOUTS = (
    Layout("fast-reid", r"backbone\.conv1\.", _FAST_REID, norm=_of_fast_reid),
    Layout("MoCo (LUPerson)", r"(?:module\.)?encoder_q\.conv1\.", _MOCO),
    Layout("torchvision, torchreid", r"conv1\.|layer\d\.", [*numbered(), *_HEADS]),
    Layout("published", r"base\.", _HEADS),
)

_PEOPLE = {"LUPerson": Source("https://github.com/DengpanFu/LUPerson", "see its page (LUPerson)")}

ARCHITECTURES = {
    arch: Architecture(
        partial(_resnet, block, counts),
        LAYOUTS,
        Source(f"https://download.pytorch.org/models/{file}", "BSD-3-Clause (torchvision)"),
        pages=_PEOPLE if block == "Bottleneck" else {},
        paper="arXiv 1512.03385",
    )
    for arch, (block, counts, file) in _KINDS.items()
}
