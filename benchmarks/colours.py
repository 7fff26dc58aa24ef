"""What can be told from colours alone: the baseline that a synthetic world must not be solved by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from icsr_cli.errors import InputError
from icsr_cli.types import FloatArray, IntArray

#: Horizontal stripes of a picture, and bins of each of the four channels.
STRIPES, BINS = 8, 8


def colour_histograms(pixels: npt.NDArray[np.uint8]) -> FloatArray:
    """Give the square roots of colour histograms of stripes: float32 (n, STRIPES x 4 x BINS).

    ``pixels`` uint8 (n, height, width, 3). The channels are lightness, the two opponent colours and
    saturation; the outer sixths of the columns, mostly background, are left out.

    Raises :class:`InputError` for other shapes or types, or pictures lower than ``STRIPES``.
    """
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or pixels.shape[1] < STRIPES:
        raise InputError(
            f"pixels: {pixels.dtype} of shape {pixels.shape}, "
            f"expected uint8 (n, height >= {STRIPES}, width, 3)"
        )
    margin, width = pixels.shape[2] // 6, pixels.shape[2]
    red, green, blue = np.moveaxis(pixels[:, :, margin : width - margin].astype(np.float32) / 255, -1, 0)
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    channels = (
        (red + green + blue) / 3,
        (red - green) / 1.2 + 0.5,
        (2 * blue - red - green) / 2.4 + 0.5,
        (most - least) / np.maximum(most, 1e-6),
    )
    parts = []
    for channel in channels:
        bins = np.clip(channel * BINS, 0, BINS - 1).astype(np.int8)
        for stripe in np.array_split(bins, STRIPES, axis=1):
            parts += [(stripe == number).mean(axis=(1, 2)) for number in range(BINS)]
    roots: FloatArray = np.sqrt(np.stack(parts, axis=1)).astype(np.float32)
    return roots


def colour_features(
    pixels: npt.NDArray[np.uint8], cameras: IntArray, *, equalise: bool = False
) -> FloatArray:
    """Give colour histograms with each camera's mean taken off: unit float32 (n, d).

    ``pixels`` uint8 (n, height, width, 3), ``cameras`` whole numbers (n,). ``equalise`` also divides by
    each camera's spread.

    Raises :class:`InputError` for shapes or types that do not fit.
    """
    if cameras.shape != pixels.shape[:1]:
        raise InputError(f"cameras: shape {cameras.shape}, expected one per picture, {pixels.shape[:1]}")
    features = colour_histograms(pixels)
    for camera in np.unique(cameras):
        rows = cameras == camera
        features[rows] -= features[rows].mean(axis=0)
        if equalise:
            features[rows] /= features[rows].std(axis=0) + np.float32(1e-3)
    length = np.sqrt((features * features).sum(axis=1, keepdims=True))
    unit: FloatArray = features / np.maximum(length, np.float32(1e-12))
    return unit


def neighbour_shares(features: FloatArray, identities: IntArray, cameras: IntArray) -> tuple[float, float]:
    """Give how often the nearest neighbour is the same person: in the same camera, in the other cameras.

    ``features`` float32 (n, d), compared by the cosine; ``identities`` and ``cameras`` (n,). Shares of
    the images, 0 to 1. Meant for some thousand images: it compares camera with camera.
    """
    unit = features / np.maximum(np.sqrt((features * features).sum(axis=1, keepdims=True)), 1e-12)
    near, far = np.zeros(len(unit), bool), np.zeros(len(unit), bool)
    for camera in np.unique(cameras):
        here, there = np.flatnonzero(cameras == camera), np.flatnonzero(cameras != camera)
        if len(here) > 1:
            inside = unit[here] @ unit[here].T
            np.fill_diagonal(inside, -2)
            near[here] = identities[here[inside.argmax(axis=1)]] == identities[here]
        if len(there):
            across = unit[here] @ unit[there].T
            far[here] = identities[there[across.argmax(axis=1)]] == identities[here]
    return float(near.mean()), float(far.mean())
