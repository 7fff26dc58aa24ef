"""Which architectures there are, and how one is built."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from icsr_cli.errors import InputError, ModelError
from icsr_cli.models import backbones
from icsr_cli.models.backbones import Backbone
from icsr_cli.models.network import POOLINGS, ModelSpec, Network
from icsr_cli.models.weights import fetch, load_into, load_weights


@cache
def _families() -> tuple[dict[str, Callable[[], Backbone]], dict[str, str]]:
    """Read every family file: makers of the backbones, and addresses of ImageNet weights."""
    makers: dict[str, Callable[[], Backbone]] = {}
    addresses: dict[str, str] = {}
    for module in pkgutil.iter_modules(backbones.__path__):
        family = importlib.import_module(f"{backbones.__name__}.{module.name}")
        makers.update(family.ARCHITECTURES)
        addresses.update(getattr(family, "IMAGENET", {}))
    return makers, addresses


def available() -> tuple[str, ...]:
    """Name every architecture, sorted."""
    return tuple(sorted(_families()[0]))


def build(
    arch: str,
    *,
    num_features: int = 0,
    pooling: str = "gem",
    stripes: int = 1,
    weights: str | Path | None = None,
    seed: int | None = None,
) -> Network:
    """Build a network: float (b, 3, h, w), normalised, to unit float32 (b, d).

    Args:
        arch: one of ``available()``.
        num_features: width of a linear embedding after the pooling; 0 for none.
        pooling: ``gem``, ``avg`` or ``max``.
        stripes: horizontal stripes that are pooled each for itself; d is ``stripes`` times the channels
            where there is no embedding.
        weights: ``None`` or ``"none"`` for random ones; ``"imagenet"``; or a file (.pth, .pth.tar,
            .safetensors).
        seed: where given, the random weights depend on it alone, and no global state is touched.

    Raises:
        InputError: an unknown architecture or pooling, a width or number of stripes out of range.
        ModelError: weights that are missing, cannot be fetched, are damaged or of another architecture.
    """
    _check(arch, num_features, pooling, stripes)
    spec = ModelSpec(arch, num_features, pooling, stripes)
    makers, addresses = _families()
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            # Not torch.manual_seed, which would seed the GPUs of the process as well.
            torch.default_generator.manual_seed(seed)
        network = Network(makers[arch](), spec)
    if weights is None or weights == "none":
        return network
    if weights == "imagenet":
        if arch not in addresses:
            raise ModelError(
                f"weights: there are no ImageNet weights of {arch}, only of {', '.join(sorted(addresses))}. "
                "Use --weights none or --weights FILE."
            )
        weights = fetch(addresses[arch], arch)
    load_into(network, load_weights(weights), str(weights))
    return network


def check_arch(arch: str) -> None:
    """Raise an InputError where there is no such architecture; it names the nearest."""
    if arch not in available():
        near = difflib.get_close_matches(arch, available(), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"arch: {arch!r} is not one of {', '.join(available())}.{hint}")


def _check(arch: str, num_features: int, pooling: str, stripes: int) -> None:
    check_arch(arch)
    if pooling not in POOLINGS:
        raise InputError(f"pooling: {pooling!r} is not one of {', '.join(POOLINGS)}.")
    if num_features < 0:
        raise InputError(f"num_features: {num_features} is below 0. Give a width, or 0 for no embedding.")
    if stripes < 1:
        raise InputError(f"stripes: {stripes} is below 1. Give the number of horizontal stripes, 1 for none.")
