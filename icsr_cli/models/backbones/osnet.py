"""OSNet (Zhou et al., arXiv 1905.00953): small networks that trackers use, and OSNet-IBN.

The parts are named as in torchreid's checkpoints. Behind the average over the map stands their last layer,
which makes 512 numbers of any width.
"""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from icsr_cli.models.backbones import Architecture, Backbone, Layout, Make
from icsr_cli.models.sources import Source

_WIDTHS = {
    "osnet_x1_0": (64, 256, 384, 512),
    "osnet_x0_75": (48, 192, 288, 384),
    "osnet_x0_5": (32, 128, 192, 256),
    "osnet_x0_25": (16, 64, 96, 128),
    "osnet_ibn_x1_0": (64, 256, 384, 512),
}
#: Convolutions in a row in each of a block's streams: receptive fields of 3, 5, 7 and 9 (section 3.2).
_STREAMS = {"conv2a": 1, "conv2b": 2, "conv2c": 3, "conv2d": 4}
_FEATURES = 512


def _convolution(inputs: int, width: int, edge: int = 1, stride: int = 1, *, ibn: bool = False) -> nn.Module:
    """Convolution, normalisation, ReLU."""
    norm = nn.InstanceNorm2d(width, affine=True) if ibn else nn.BatchNorm2d(width)
    layer = nn.Conv2d(inputs, width, edge, stride, edge // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=layer, bn=norm, relu=nn.ReLU(inplace=True)))


def _linear(inputs: int, width: int) -> nn.Module:
    """1 x 1 convolution and normalisation."""
    layer = nn.Conv2d(inputs, width, 1, bias=False)
    return nn.Sequential(OrderedDict(conv=layer, bn=nn.BatchNorm2d(width)))


def _light(width: int) -> nn.Module:
    """Factorised 3 x 3 convolution: across channels, then within each (section 3.1)."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(width, width, 1, bias=False),
            conv2=nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            bn=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
        )
    )


class _Gate(nn.Module):
    """Weigh the channels of a stream by what is in it; all streams share it (eq. 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // 16, 1)
        self.fc2 = nn.Conv2d(width // 16, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh float (b, width, h, w)."""
        found: Tensor = self.fc2(relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * found.sigmoid()


class _Block(nn.Module):
    """Residual block of four streams (figure 4)."""

    def __init__(self, inputs: int, width: int, ibn: bool) -> None:
        super().__init__()
        middle = width // 4
        self.conv1 = _convolution(inputs, middle)
        self.conv2a = _light(middle)
        for name, count in list(_STREAMS.items())[1:]:
            self.add_module(name, nn.Sequential(*(_light(middle) for _ in range(count))))
        self.gate = _Gate(middle)
        self.conv3 = _linear(middle, width)
        self.downsample = _linear(inputs, width) if inputs != width else None
        self.IN = nn.InstanceNorm2d(width, affine=True) if ibn else None

    def forward(self, x: Tensor) -> Tensor:
        """Float (b, inputs, h, w) to (b, width, h, w)."""
        narrow = self.conv1(x)
        streams = [self.gate(self.get_submodule(name)(narrow)) for name in _STREAMS]
        shortcut = x if self.downsample is None else self.downsample(x)
        found = self.conv3(sum(streams[1:], streams[0])) + shortcut
        return relu(found if self.IN is None else self.IN(found))


def _stage(inputs: int, width: int, *, halve: bool, ibn: bool = False) -> nn.Sequential:
    blocks: list[nn.Module] = [_Block(inputs, width, ibn), _Block(width, width, ibn)]
    if halve:
        blocks.append(nn.Sequential(_convolution(width, width), nn.AvgPool2d(2, 2)))
    return nn.Sequential(*blocks)


def _osnet(arch: str, wish: Make) -> Backbone:
    stem, first, second, third = _WIDTHS[arch]
    ibn = "ibn" in arch
    layers = nn.Sequential(
        OrderedDict(
            conv1=_convolution(3, stem, 7, 2, ibn=ibn),
            maxpool=nn.MaxPool2d(3, 2, 1),
            conv2=_stage(stem, first, halve=True, ibn=ibn),
            conv3=_stage(first, second, halve=True),
            conv4=_stage(second, third, halve=False),
            conv5=_convolution(third, third),
        )
    )
    neck = nn.Sequential(nn.Linear(third, _FEATURES), nn.BatchNorm1d(_FEATURES), nn.ReLU(inplace=True))
    for layer in [*layers.modules(), *neck]:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.zeros_(layer.bias)
    return Backbone(layers, _FEATURES, neck=neck)


LAYOUTS = (
    Layout(
        "torchreid",
        r"conv[1-5]\.",
        [(r"conv(\d)\.", r"base.conv\1."), (r"fc\.", "neck."), (r"classifier\.", None)],
    ),
    Layout("of our own", r"base\.conv"),
)

_ZOO = Source("https://kaiyangzhou.github.io/deep-person-reid/MODEL_ZOO", "see its page (torchreid)")

ARCHITECTURES = {
    arch: Architecture(
        partial(_osnet, arch),
        LAYOUTS,
        pages={"ImageNet; people": _ZOO},
        pooling="avg",
        paper="arXiv 1905.00953",
    )
    for arch in _WIDTHS
}
