"""What the header of our weight files says of a network."""

from __future__ import annotations

import json
from collections.abc import Mapping

from icsr_cli.errors import ModelError
from icsr_cli.models.backbones import Size
from icsr_cli.models.network import ModelSpec
from icsr_cli.types import IMAGENET, PixelNorm


def norm_of(header: Mapping[str, str]) -> PixelNorm:
    """Give what the pixels are normalised by: ImageNet's where the header says nothing.

    Raises:
        ModelError: it says nonsense.
    """
    if "mean" not in header and "std" not in header:
        return IMAGENET
    try:
        mean, std = (tuple(map(float, json.loads(header[part]))) for part in ("mean", "std"))
        return PixelNorm(mean, std)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the header does not say what the pixels are normalised by ({error!r}).") from error


def size_of(header: Mapping[str, str]) -> Size | None:
    """Give (height, width) of the images, where the header says it.

    Raises:
        ModelError: it says nonsense.
    """
    if not {"height", "width"} <= header.keys():
        return None
    try:
        return int(header["height"]), int(header["width"])
    except ValueError as error:
        raise ModelError(f"the header does not say the size of the images ({error}).") from error


def spec_of(header: Mapping[str, str]) -> ModelSpec:
    """Give what a network is made of.

    Raises:
        ModelError: something is missing, or nonsense.
    """
    try:
        arch, width, pooling, stripes = (
            header[key] for key in ("arch", "num_features", "pooling", "stripes")
        )
        return ModelSpec(arch, int(width), pooling, int(stripes), norm_of(header), size_of(header))
    except (KeyError, ValueError) as error:
        raise ModelError(f"the header does not say what the network is made of ({error!r}).") from error
