"""Which network a file of weights belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from icsr_cli.errors import InputError, ModelError
from icsr_cli.models.catalogue import available, build
from icsr_cli.models.network import ModelSpec, Network
from icsr_cli.models.weights import is_backbone, load_into, load_weights, published_names, read_metadata


@cache
def _shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an architecture's backbone."""
    with torch.device("meta"):
        return _backbone_shapes(build(arch, pooling="avg").state_dict())


def _backbone_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if name.startswith("base.") and not name.endswith("num_batches_tracked")
    }


def detect(state: Mapping[str, Tensor]) -> ModelSpec:
    """Tell from names and shapes which network a state dict belongs to.

    GeM has its ``gap.p``; average and maximum pooling leave no trace and are taken for average. A plain
    backbone (ImageNet weights) is given GeM and no embedding, the published choice.

    Raises:
        ModelError: it fits no architecture, or the widths of its parts do not go together.
    """
    state = published_names(state)
    shapes = _backbone_shapes(state)
    arch = next((arch for arch in available() if _shapes(arch) == shapes), None)
    if arch is None:
        raise ModelError(
            f"the weights ({len(state)} tensors, {len(shapes)} of a backbone) fit none of "
            f"{', '.join(available())}. Give a file of one of these."
        )
    if is_backbone(state):
        return ModelSpec(arch)
    with torch.device("meta"):
        channels = build(arch).dim
    num_features, pooled = 0, 0
    if "feat.weight" in state and state["feat.weight"].dim() == 2:
        num_features, pooled = state["feat.weight"].shape
    elif "feat_bn.weight" in state:
        pooled = state["feat_bn.weight"].numel()
    if pooled == 0 or pooled % channels:
        raise ModelError(
            f"the weights are of {arch} with {channels} channels, but the pooled width {pooled} is no "
            "multiple of that. Give a whole file of weights."
        )
    return ModelSpec(arch, num_features, "gem" if "gap.p" in state else "avg", pooled // channels)


def open_model(path: str | Path) -> Network:
    """Build the network that a file of weights belongs to, and load them.

    The header of our own files says what it is; for others names and shapes do.

    Raises:
        ModelError: as ``load_weights``, ``detect`` and ``load_into``.
    """
    state = load_weights(path)
    header = read_metadata(path)
    try:
        spec = _spec(header) if "arch" in header else detect(state)
        network = build(spec.arch, num_features=spec.num_features, pooling=spec.pooling, stripes=spec.stripes)
    except (InputError, ModelError) as error:
        raise ModelError(f"{path}: {error}") from error
    load_into(network, state, str(path))
    return network


def _spec(header: Mapping[str, str]) -> ModelSpec:
    try:
        return ModelSpec(
            header["arch"], int(header["num_features"]), header["pooling"], int(header["stripes"])
        )
    except (KeyError, ValueError) as error:
        raise ModelError(f"the header does not say what the network is made of ({error!r}).") from error
