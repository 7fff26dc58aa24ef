"""ResNet-18 to 152 (He et al., arXiv 1512.03385), with stride 1 in the last stage."""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models import (
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    ResNet152_Weights,
)
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from icsr_cli.models.backbones import Architecture, Backbone, Make
from icsr_cli.models.layouts import Layout
from icsr_cli.models.sources import Source

_BLOCKS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


def last_stride_one(stage: nn.Sequential) -> None:
    """Make a stage of stride 2 keep its resolution, in place; the parameters do not change.

    The stride sits in the shortcut and in the first block's 3x3 convolution: ``conv2`` of a bottleneck,
    ``conv1`` of a basic block.
    """
    block = stage[0]
    assert isinstance(block, (BasicBlock, Bottleneck))
    shortcut = block.downsample[0]
    for convolution in (block.conv2 if isinstance(block, Bottleneck) else block.conv1, shortcut):
        convolution.stride = (1, 1)


def layers_of(network: ResNet) -> Backbone:
    """Take the layers before the classifier, with stride 1 in the last stage."""
    last_stride_one(network.layer4)
    layers = nn.Sequential(
        network.conv1,
        network.bn1,
        network.relu,
        network.maxpool,
        network.layer1,
        network.layer2,
        network.layer3,
        network.layer4,
    )
    return Backbone(layers, network.fc.in_features)


def _resnet(arch: str, wish: Make) -> Backbone:
    block, counts = _BLOCKS[arch]
    return layers_of(ResNet(block, list(counts), num_classes=1))


def numbered(prefix: str = "") -> list[tuple[str, str | None]]:
    """Give the renamings of torchvision's names, behind ``prefix``, to the numbers of the published ones."""
    return [
        (rf"{prefix}conv1\.", "base.0."),
        (rf"{prefix}bn1\.", "base.1."),
        *((rf"{prefix}layer{stage}\.", f"base.{stage + 3}.") for stage in range(1, 5)),
    ]


#: Classifiers are left out.
_HEADS: list[tuple[str, str | None]] = [(r"fc\.", None), ("classifier", None)]

LAYOUTS = (
    Layout("torchvision, torchreid", r"conv1\.|layer\d\.", [*numbered(), *_HEADS]),
    Layout("published", r"base\.", _HEADS),
)

#: The first published weights, which the method's numbers stand on.
_IMAGENET = {
    "resnet18": ResNet18_Weights.IMAGENET1K_V1.url,
    "resnet34": ResNet34_Weights.IMAGENET1K_V1.url,
    "resnet50": ResNet50_Weights.IMAGENET1K_V1.url,
    "resnet101": ResNet101_Weights.IMAGENET1K_V1.url,
    "resnet152": ResNet152_Weights.IMAGENET1K_V1.url,
}

ARCHITECTURES = {
    arch: Architecture(partial(_resnet, arch), LAYOUTS, Source(_IMAGENET[arch], "BSD-3-Clause (torchvision)"))
    for arch in _BLOCKS
}
