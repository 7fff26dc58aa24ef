"""A small residual network for small images (64 x 32 pixels or so): fast on a CPU."""

from torch import nn

from icsr_cli.models.backbones import Architecture, Backbone, Make
from icsr_cli.models.backbones.resnet import LAYOUTS

_WIDTHS = (32, 64, 96, 128)
_STRIDES = (1, 2, 2, 1)


def _stage(inputs: int, width: int, stride: int) -> nn.Sequential:
    from torchvision.models.resnet import BasicBlock

    shortcut = None
    if stride != 1 or inputs != width:
        shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    return nn.Sequential(BasicBlock(inputs, width, stride, shortcut))


def _resnet_small(wish: Make) -> Backbone:
    stem = [
        nn.Conv2d(3, _WIDTHS[0], 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(_WIDTHS[0]),
        nn.ReLU(inplace=True),
        nn.Identity(),  # no pooling here; the place keeps the published numbering of the stages
    ]
    inputs = (_WIDTHS[0], *_WIDTHS)
    stages = [_stage(*shape) for shape in zip(inputs, _WIDTHS, _STRIDES, strict=False)]
    layers = nn.Sequential(*stem, *stages)
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return Backbone(layers, _WIDTHS[-1])


ARCHITECTURES = {"resnet_small": Architecture(_resnet_small, LAYOUTS)}
