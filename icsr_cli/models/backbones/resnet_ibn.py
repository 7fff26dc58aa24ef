"""ResNet-IBN-a 50 and 101 (Pan et al., arXiv 1807.09441), with stride 1 in the last stage."""

from functools import partial

import torch
from torch import Tensor, nn

from icsr_cli.models.backbones import Architecture, Backbone, Make
from icsr_cli.models.backbones.resnet import LAYOUTS, layers_of
from icsr_cli.models.sources import Source

#: Blocks of each stage, and the published weights.
_KINDS = {
    "resnet_ibn50a": ((3, 4, 6, 3), "resnet50_ibn_a-d9d0bb7b.pth"),
    "resnet_ibn101a": ((3, 4, 23, 3), "resnet101_ibn_a-59ea0ac6.pth"),
}
_RELEASE = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"


class InstanceBatchNorm(nn.Module):
    """Instance normalisation (affine) for the first half of the channels, batch normalisation for the rest.

    The children are named as in the published weights: ``IN`` and ``BN``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.instance_channels = channels // 2
        self.IN = nn.InstanceNorm2d(self.instance_channels, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.instance_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise float (b, channels, h, w)."""
        first, rest = x[:, : self.instance_channels], x[:, self.instance_channels :]
        return torch.cat((self.IN(first), self.BN(rest)), dim=1)


def _resnet_ibn(counts: tuple[int, ...], wish: Make) -> Backbone:
    from torchvision.models.resnet import Bottleneck, ResNet

    network = ResNet(Bottleneck, list(counts), num_classes=1)
    for stage in (network.layer1, network.layer2, network.layer3):
        for block in stage:
            block.bn1 = InstanceBatchNorm(block.bn1.num_features)
    return layers_of(network)


ARCHITECTURES = {
    arch: Architecture(
        partial(_resnet_ibn, counts),
        LAYOUTS,
        Source(_RELEASE + file, "see its page (IBN-Net)"),
        paper="arXiv 1807.09441",
    )
    for arch, (counts, file) in _KINDS.items()
}
