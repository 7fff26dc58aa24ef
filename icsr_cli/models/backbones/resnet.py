"""ResNet-18 to 152 (He et al., arXiv 1512.03385), with stride 1 in the last stage."""

from __future__ import annotations

from collections.abc import Callable
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

from icsr_cli.models.backbones import Backbone

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


def _resnet(arch: str) -> Backbone:
    block, counts = _BLOCKS[arch]
    return layers_of(ResNet(block, list(counts), num_classes=1))


ARCHITECTURES: dict[str, Callable[[], Backbone]] = {arch: partial(_resnet, arch) for arch in _BLOCKS}

#: The first published weights, which the method's numbers stand on.
IMAGENET: dict[str, str] = {
    "resnet18": ResNet18_Weights.IMAGENET1K_V1.url,
    "resnet34": ResNet34_Weights.IMAGENET1K_V1.url,
    "resnet50": ResNet50_Weights.IMAGENET1K_V1.url,
    "resnet101": ResNet101_Weights.IMAGENET1K_V1.url,
    "resnet152": ResNet152_Weights.IMAGENET1K_V1.url,
}
