"""Which architectures there are, and how one is built."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch

from icsr_cli.checks import check_count
from icsr_cli.errors import InputError, ModelError, did_you_mean
from icsr_cli.models import backbones
from icsr_cli.models.backbones import Architecture, Make
from icsr_cli.models.network import POOLINGS, ModelSpec, Network
from icsr_cli.models.sources import fetch
from icsr_cli.models.unfilled import unfilled
from icsr_cli.models.weights import load_into, load_weights, norm_of, read_metadata, size_of, way_out
from icsr_cli.types import PIXEL_NORMS, PixelNorm, Size, Three


@cache
def _modules() -> dict[str, Any]:
    """Load every family file, by name."""
    return {
        module.name: importlib.import_module(f"{backbones.__name__}.{module.name}")
        for module in pkgutil.iter_modules(backbones.__path__)
    }


@cache
def _families() -> dict[str, Architecture]:
    """Give the architectures of every family that names its own."""
    own = (getattr(module, "ARCHITECTURES", {}) for module in _modules().values())
    return {arch: made for family in own for arch, made in family.items()}


def available() -> tuple[str, ...]:
    """Name every architecture, sorted, but for those that a library names (``timm:...``)."""
    return tuple(sorted(_families()))


def architecture(arch: str) -> Architecture:
    """Find an architecture by its name. Raises InputError where there is none; the nearest is named."""
    family, colon, name = arch.partition(":")
    if colon and hasattr(_modules().get(family), "architecture"):
        found: Architecture = _modules()[family].architecture(name)
        return found
    if arch not in _families():
        hint = did_you_mean(arch, available())
        raise InputError(f"arch: {arch!r} is not one of {', '.join(available())}, timm:NAME.{hint}")
    return _families()[arch]


def build(
    arch: str,
    *,
    num_features: int = 0,
    pooling: str | None = None,
    stripes: int = 1,
    weights: str | Path | None = None,
    seed: int | None = None,
    size: Size | None = None,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    drop_path: float = 0.0,
    freeze: Sequence[str] = (),
) -> Network:
    """Build a network: float (b, 3, h, w), normalised by its ``norm``, to unit float32 (b, d).

    Args:
        arch: one of ``available()``, or ``timm:NAME``.
        num_features: width of a linear embedding after the pooling; 0 for none.
        pooling: ``gem``, ``avg``, ``max`` or ``cls``; default: what suits the architecture.
        stripes: horizontal stripes that are pooled each for itself; d is ``stripes`` times the channels
            where there is no embedding.
        weights: ``None`` or ``"none"`` for random ones; ``"imagenet"`` (or ``"pretrained"``: what its family
            has); or a file (.pth, .pth.tar, .safetensors).
        seed: where given, the random weights depend on it alone, and no global state is touched.
        size: (height, width) of the images, which a transformer's positions are of; default: what the file of
            weights says, else 256 x 128.
        mean: of the pixels, from 0 to 1: a name in ``PIXEL_NORMS`` or three numbers; default: what the
            weights say, else the family.
        std: their standard deviation, likewise.
        drop_path: rate of stochastic depth in training, from 0.
        freeze: parts of the backbone whose parameters do not train, ``patch_embed`` for instance.

    Raises:
        InputError: an unknown architecture or pooling, a value out of range, options that do not go together.
        ModelError: weights that are missing, cannot be fetched, are damaged or of another architecture.
    """
    chosen = architecture(arch)
    pooling = pooling or chosen.pooling
    if pooling not in POOLINGS:
        raise InputError(f"pooling: {pooling!r} is not one of {', '.join(POOLINGS)}.")
    check_count("num_features", num_features, low=0)
    check_count("stripes", stripes)
    rate = isinstance(drop_path, int | float) and 0 <= drop_path < 1
    if not rate or (drop_path and not chosen.has_drop_path):
        raise InputError(
            f"drop_path: {drop_path!r}: {arch} takes {'0 to 1' if chosen.has_drop_path else '0'}."
        )
    header = read_metadata(weights) if weights not in (None, *_NO_FILE) else {}
    size = (size_of(header) or (256, 128)) if size is None else _two(size)
    _check_patches(arch, size, chosen.patch)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            # Not torch.manual_seed, which would seed the GPUs of the process as well.
            torch.default_generator.manual_seed(seed)
        spec = ModelSpec(arch, num_features, pooling, stripes, chosen.norm, size)
        network = Network(chosen, chosen.make(Make(size, drop_path)), spec)
    own = _load(network, weights, header) or chosen.norm
    try:
        network.norm = PixelNorm(_three(mean, "mean", own), _three(std, "std", own))
    except ValueError as error:
        raise InputError(f"{error}.") from None
    network.freeze(freeze)
    return network


def faults(size: Size, stripes: int, freeze: Sequence[str], **options: Any) -> list[str]:
    """Say what of a network for images of ``size`` does not fit, by ``key: message``; no number is computed.

    ``options``: the others of ``build``; weights are not looked at.
    """
    try:
        with unfilled():
            network = build(**{**options, "weights": None}, size=size).eval()
    except InputError as error:
        return [f"arch: {error}"]
    return network.faults(size, stripes, freeze)


def resized(network: Network, size: Size) -> Network:
    """Give ``network`` for images of another (height, width): itself, where any will do.

    Else the positions of its patches are resized; the network that was given stays as it was.
    Raises InputError where it cannot be made for that size.
    """
    if network.size in (None, size):
        return network
    other = build(**network.spec.options, size=size, seed=0)
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    load_into(other, state, f"{network.arch} at {size[0]} x {size[1]}", network.size)
    other.norm = network.norm
    return other.to(next(network.parameters()).device).train(network.training)


#: What ``weights`` may say beside a file.
_NO_FILE = ("none", "imagenet", "pretrained")


def _load(network: Network, weights: str | Path | None, header: Mapping[str, str]) -> PixelNorm | None:
    """Load what ``weights`` names, and give what its pixels are normalised by, where it says so."""
    arch, chosen = network.arch, network.architecture
    if weights is None or weights == "none":
        return None
    if weights not in ("imagenet", "pretrained"):
        said = load_into(network, load_weights(weights), str(weights), size_of(header))
        # Average and maximum have no weights that would tell them apart.
        if (trained := header.get("pooling", network.pooling)) != network.pooling:
            raise ModelError(
                f"{weights}: these weights were trained with the pooling {trained}, and {network.pooling} is "
                f"asked for. {way_out(network.spec, str(weights))}"
            )
        return norm_of(header) if "arch" in header else said
    if chosen.source is not None:
        file = fetch(chosen.source, arch)
        return load_into(network, load_weights(file), str(file))
    if chosen.fetch is not None:
        return load_into(network, chosen.fetch(), f"the weights of {arch}", chosen.fetched_size)
    pages = "".join(
        f" Trained on {data}: {page.address} ({page.licence})." for data, page in chosen.pages.items()
    )
    known = sorted(name for name, other in _families().items() if other.source is not None)
    raise ModelError(
        f"weights: there are no ImageNet weights of {arch}, only of {', '.join(known)}. "
        f"Use --weights none or --weights FILE.{pages}"
    )


def _two(size: Sequence[int]) -> Size:
    try:
        height, width = size
    except (TypeError, ValueError):
        raise InputError(f"size must be (height, width), got {size!r}.") from None
    return check_count("size: height", height), check_count("size: width", width)


def _three(given: str | Sequence[float] | None, part: str, default: PixelNorm) -> Three:
    """Give the three numbers that were asked for, the default's where nothing was."""
    if given is None:
        return cast("Three", getattr(default, part))
    try:
        if isinstance(given, str):
            return cast("Three", getattr(PIXEL_NORMS[given], part))
        return cast("Three", tuple(map(float, given)))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{part}: expected {', '.join(PIXEL_NORMS)} or three numbers, got {given!r}"
        ) from None


def nearest_size(size: Size, patch: int) -> Size:
    """Give the size of whole patches that comes nearest."""
    height, width = (max(1, round(edge / patch)) * patch for edge in size)
    return height, width


def _check_patches(arch: str, size: Size, patch: int) -> None:
    """Refuse images that are not whole patches."""
    if any(edge % patch for edge in size):
        height, width = nearest_size(size, patch)
        raise InputError(
            f"{arch} takes images in patches of {patch} pixels, and {size[0]} x {size[1]} is no multiple of "
            f"that. Take --height {height} --width {width}."
        )
