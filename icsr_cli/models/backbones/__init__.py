"""One file per family of backbones, found by its name.

A family file holds ``ARCHITECTURES``, a dict from an architecture's name to a function that makes its
``Backbone``, and may hold ``IMAGENET``, a dict from an architecture's name to the address of its ImageNet
weights (the file's name ends in the first eight digits of its SHA-256, as torch hub has it).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Backbone(NamedTuple):
    """Convolutional layers from float (b, 3, h, w) to (b, ``channels``, h', w').

    ``layers`` has the published order of eight children: convolution, normalisation, ReLU, pooling,
    and the four stages.
    """

    layers: nn.Sequential
    channels: int
