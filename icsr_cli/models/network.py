"""Backbone, pooling, optional embedding, BatchNorm, unit length: the network of the method."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from icsr_cli.errors import InputError
from icsr_cli.models.backbones import Backbone

POOLINGS = ("gem", "avg", "max")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a network is made of.

    ``num_features`` is the width of the linear embedding, 0 for none; ``pooling`` one of ``gem``, ``avg``,
    ``max``; ``stripes`` the number of horizontal stripes pooled each for itself.
    """

    arch: str
    num_features: int = 0
    pooling: str = "gem"
    stripes: int = 1

    def metadata(self) -> dict[str, str]:
        """Give the fields as text, for the header of a weight file."""
        return {name: str(value) for name, value in asdict(self).items()}


class Pooling(nn.Module):
    """Pool float (b, c, h, w) over ``stripes`` horizontal stripes to float32 (b, stripes * c), top first.

    GeM (Radenovic et al., arXiv 1711.02512, eq. 3): (mean of max(x, 1e-6)^p)^(1/p), one learnt ``p``.
    """

    def __init__(self, kind: str, stripes: int) -> None:
        super().__init__()
        self.kind = kind
        self.stripes = stripes
        if kind == "gem":
            self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        """Pool; raise InputError where the image is so low that a stripe would be empty."""
        rows = x.shape[2]
        if rows < self.stripes:
            raise InputError(
                f"images: the feature map has {rows} rows, too few for {self.stripes} stripes. "
                "Use higher images or fewer stripes."
            )
        x = x.float()
        if self.kind == "gem":
            x = x.clamp(min=1e-6).pow(self.p)
        edges = [rows * i // self.stripes for i in range(self.stripes + 1)]
        parts = [x[:, :, top:bottom] for top, bottom in pairwise(edges)]
        if self.kind == "max":
            return torch.cat([part.amax((2, 3)) for part in parts], dim=1)
        pooled = torch.cat([part.mean((2, 3)) for part in parts], dim=1)
        return pooled.pow(1 / self.p) if self.kind == "gem" else pooled

    def extra_repr(self) -> str:
        """Show kind and stripes."""
        return f"{self.kind!r}, stripes={self.stripes}"


class Network(nn.Module):
    """Float (b, 3, h, w) to unit float32 (b, ``dim``).

    The parameter names are those of the published checkpoints: ``base.0``, ``base.1``, ``base.4`` to
    ``base.7``, ``gap.p``, ``feat.*``, ``feat_bn.*``. The bias of ``feat_bn`` stays at 0.

    Attributes:
        dim: width of the output.
        arch, num_features, pooling, stripes: what it was built of.
    """

    def __init__(self, backbone: Backbone, spec: ModelSpec) -> None:
        super().__init__()
        self.arch, self.num_features = spec.arch, spec.num_features
        self.pooling, self.stripes = spec.pooling, spec.stripes
        self.base = backbone.layers
        self.gap = Pooling(spec.pooling, spec.stripes)
        pooled = backbone.channels * spec.stripes
        self.dim = spec.num_features or pooled
        self.feat: nn.Linear | None = None
        if spec.num_features:
            self.feat = nn.Linear(pooled, spec.num_features)
            nn.init.kaiming_normal_(self.feat.weight, mode="fan_out")
            nn.init.zeros_(self.feat.bias)
        self.feat_bn = nn.BatchNorm1d(self.dim)
        self.feat_bn.bias.requires_grad_(False)

    @property
    def spec(self) -> ModelSpec:
        """What it was built of."""
        return ModelSpec(self.arch, self.num_features, self.pooling, self.stripes)

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalised images."""
        x = self.gap(self.base(x))
        if self.feat is not None:
            x = self.feat(x)
        x = self.feat_bn(x).float()
        # Spelled out: functional.normalize expands the length to the shape of x, which OpenCV cannot read.
        unit: Tensor = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)
        return unit
