"""Backbone, pooling, optional embedding, BatchNorm, unit length: the network of the method."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from icsr_cli.errors import InputError, counted
from icsr_cli.models.backbones import Architecture, Backbone
from icsr_cli.types import IMAGENET, PixelNorm, Size

POOLINGS = ("gem", "avg", "max", "cls")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a network is made of.

    ``num_features`` is the width of the linear embedding, 0 for none; ``pooling`` one of ``POOLINGS``;
    ``stripes`` the number of horizontal stripes pooled each for itself; ``norm`` what its pixels are
    normalised by; ``size`` the (height, width) of its images where it takes no other.
    """

    arch: str
    num_features: int = 0
    pooling: str = "gem"
    stripes: int = 1
    norm: PixelNorm = IMAGENET
    size: Size | None = None

    @property
    def title(self) -> str:
        """Say in a line what weights have to fit."""
        size = f", {self.size[0]} x {self.size[1]}" if self.size else ""
        return f"{self.arch} (num_features {self.num_features}, {self.pooling}, stripes {self.stripes}{size})"

    @property
    def options(self) -> dict[str, Any]:
        """What ``build`` makes it of, but for the size of images."""
        return {name: getattr(self, name) for name in ("arch", "num_features", "pooling", "stripes")}

    def metadata(self) -> dict[str, str]:
        """Give the fields as text, for the header of a weight file; ImageNet's norm goes without saying."""
        text = {name: str(value) for name, value in self.options.items()}
        if self.norm != IMAGENET:
            text |= {"mean": json.dumps(self.norm.mean), "std": json.dumps(self.norm.std)}
        if self.size is not None:
            text |= {"height": str(self.size[0]), "width": str(self.size[1])}
        return text


class Pooling(nn.Module):
    """Pool float (b, c, h, w) over ``stripes`` horizontal stripes to float32 (b, stripes * c), top first.

    ``cls`` pools nothing: it is handed the class token, (b, c).
    GeM (Radenovic et al., arXiv 1711.02512, eq. 3): (mean of max(x, 1e-6)^p)^(1/p), one learnt ``p``.
    """

    def __init__(self, kind: str, stripes: int) -> None:
        super().__init__()
        self.kind = kind
        self.stripes = stripes
        if kind == "gem":
            self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        """Pool float (b, c, h, w); raise InputError where h is so low that a stripe would be empty."""
        if self.kind == "cls":
            return x.float()
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


class Network(nn.Module):
    """Float (b, 3, h, w) to unit float32 (b, ``dim``).

    The parameter names are those of the published checkpoints: ``base.0``, ``base.1``, ``base.4`` to
    ``base.7``, ``gap.p``, ``feat.*``, ``feat_bn.*``; the backbone of another family is ``base.`` and its
    own names. The bias of ``feat_bn`` stays at 0.

    Attributes:
        dim: width of the output.
        arch, num_features, pooling, stripes: what it was built of.
        norm: what its pixels are normalised by; it belongs to the weights.
        size: (height, width) of its images, where it takes no other.
    """

    def __init__(self, architecture: Architecture, backbone: Backbone, spec: ModelSpec) -> None:
        super().__init__()
        _check_pooling(backbone, spec)
        self.arch, self.num_features = spec.arch, spec.num_features
        self.pooling, self.stripes = spec.pooling, spec.stripes
        self.norm, self.size = spec.norm, spec.size if backbone.sized else None
        self.architecture = architecture
        self.base = backbone.layers
        self._form, self._prefix, self._patch = backbone.form, backbone.prefix, backbone.patch
        self.gap = Pooling(spec.pooling, spec.stripes)
        if backbone.neck is not None:
            self.neck = backbone.neck
        self._parts = backbone.parts
        both = 2 if spec.pooling == "cls" and backbone.parts else 1
        pooled = backbone.channels * spec.stripes * both
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
        return ModelSpec(self.arch, self.num_features, self.pooling, self.stripes, self.norm, self.size)

    @property
    def grid(self) -> Size | None:
        """Rows and columns of its patches, where its positions are of one size."""
        return None if self.size is None else (self.size[0] // self._patch, self.size[1] // self._patch)

    def freeze(self, parts: Iterable[str]) -> None:
        """Keep the parameters of these parts of the backbone (``patch_embed``, ``0``) as they are.

        Raises InputError where there is no such part, or it has no parameters.
        """
        for part in parts:
            named = self._parameters_of(part)
            if not named:
                raise InputError(f"freeze: {self._lacks(part)}")
            for parameter in named:
                parameter.requires_grad_(False)

    def _parameters_of(self, part: str) -> list[nn.Parameter]:
        return [
            value
            for name, value in self.base.named_parameters()
            if name == part or name.startswith(f"{part}.")
        ]

    def _lacks(self, part: str) -> str:
        there = dict.fromkeys(name.partition(".")[0] for name, _ in self.base.named_parameters())
        return f"{self.arch} has no part {part!r}. It has {', '.join(there)}."

    @torch.no_grad()
    def faults(self, size: Size, stripes: int, freeze: Iterable[str]) -> list[str]:
        """Say why it cannot have these ``stripes`` of images of ``size``, or ``freeze``, by ``key: message``.

        It is looked at without stripes of its own; one on the device ``meta`` computes nothing.
        """
        found = [
            f"freeze: {self._lacks(part)} [] freezes none."
            for part in freeze
            if not self._parameters_of(part)
        ]
        if stripes > 1 and (hasattr(self, "neck") or self.pooling == "cls"):
            found.append(f"stripes: {_no_stripes(stripes, self.arch, self.pooling)}")
        elif stripes > 1:
            here = next(self.base.parameters()).device
            maps = self._maps(self.base(torch.empty(1, 3, *size, device=here)), size[0])
            if (rows := maps.shape[2]) < stripes:
                found.append(
                    f"stripes: {self.arch} gives maps of {counted(rows, 'row')} of images of {size[0]} x "
                    f"{size[1]}, too few for {stripes} stripes. Take {rows} at most, or higher images "
                    "(--height)."
                )
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalised float (b, 3, h, w); raise InputError where h x w is not the network's size."""
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            raise InputError(
                f"images: {self.arch} was made for {self.size[0]} x {self.size[1]}, got "
                f"{x.shape[2]} x {x.shape[3]}. Resize them, or build it with their size."
            )
        x = self.gap(self._maps(self.base(x), x.shape[2]))
        if hasattr(self, "neck"):
            x = self.neck(x)
        if self.feat is not None:
            x = self.feat(x)
        x = self.feat_bn(x).float()
        # Spelled out: functional.normalize expands the length to the shape of x, which OpenCV cannot read.
        unit: Tensor = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)
        return unit

    def _maps(self, found: Tensor, height: int) -> Tensor:
        """Give what the backbone found in images of ``height`` as (b, c, h, w), or the class token (b, c)."""
        if self._form == "last":
            return found.permute(0, 3, 1, 2)
        if self._form == "map":
            return found
        if self.pooling == "cls" and self._parts:
            return torch.cat((found[:, 0], found[:, 1 : 1 + self._parts].mean(dim=1)), dim=1)
        if self.pooling == "cls":
            return found[:, 0]
        patches = found[:, self._prefix :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], height // self._patch, -1)


def unwrapped(model: nn.Module) -> nn.Module:
    """Take DistributedDataParallel and torch.compile off a network."""
    while isinstance(inner := getattr(model, "module", getattr(model, "_orig_mod", None)), nn.Module):
        model = inner
    return model


def _check_pooling(backbone: Backbone, spec: ModelSpec) -> None:
    """Refuse a pooling that does not fit what the backbone gives."""
    if spec.pooling == "cls" and not backbone.class_token:
        raise InputError(f"pooling: cls takes the class token, and {spec.arch} has none; gem, avg, max pool.")
    if spec.stripes > 1 and (spec.pooling == "cls" or backbone.neck is not None):
        raise InputError(f"stripes: {_no_stripes(spec.stripes, spec.arch, spec.pooling)}")


def _no_stripes(stripes: int, arch: str, pooling: str = "") -> str:
    what = "cls, which is one token" if pooling == "cls" else f"the layers after the pooling of {arch}"
    return f"{stripes} do not go with {what}. Leave stripes at 1."
