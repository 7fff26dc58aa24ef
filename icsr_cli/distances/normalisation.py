"""Features made comparable across cameras: each camera's mean, or its mean and spread, taken off.

Source: arXiv 2502.10195 (ICLR 2025). Where the people of one camera look different from those of another on
the whole, what tells them apart goes with the mean; then it does harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from icsr_cli.checks import as_numpy, in_kind, whole_numbers
from icsr_cli.distances.features import refuse_infinite
from icsr_cli.errors import InputError
from icsr_cli.types import FloatArray, IntArray

Normalisation = Literal["none", "centre", "full"]
#: A camera's own statistics count for as much as those of all images where it has so many.
SHRINK = 25
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class CameraStatistics:
    """Mean and spread of the features of each camera, float32 (c, d); row c - 1 is for unknown cameras.

    A camera of few images is drawn to all images: with a = n / (n + ``shrink``), its mean is a times its own
    and 1 - a times the mean of all, and so its variance.
    """

    mean: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, features: Any, cameras: Any, shrink: float = SHRINK) -> CameraStatistics:
        """Measure float (n, d) under cameras int (n,), from 0, in float64.

        Raises InputError where shapes or values do not fit.
        """
        if not shrink >= 0:
            raise InputError(f"shrink must be a number from 0, got {shrink!r}.")
        values, cameras = _checked(features, cameras)
        mean, variance = np.empty((2, int(cameras.max()) + 2, values.shape[1]))
        mean[:], variance[:] = values.mean(axis=0, dtype=np.float64), values.var(axis=0, dtype=np.float64)
        for camera in np.unique(cameras):
            own = values[cameras == camera].astype(np.float64)
            share = len(own) / (len(own) + shrink)
            mean[camera] = share * own.mean(axis=0) + (1 - share) * mean[-1]
            variance[camera] = share * own.var(axis=0) + (1 - share) * variance[-1]
        return cls(mean.astype(np.float32), np.sqrt(variance).astype(np.float32))

    def apply(self, features: Any, cameras: Any, mode: Normalisation = "full") -> Any:
        """Normalise float (n, d): unit float32 (n, d), numpy or torch as it came.

        A camera that was not measured has the statistics of all. A dimension without spread gives 0.
        """
        if mode == "none":
            return features
        values, cameras = _checked(features, cameras)
        which = np.where(cameras < len(self.mean) - 1, cameras, len(self.mean) - 1)
        found = values - self.mean[which]
        if mode == "full":
            alive = self.spread > _LEAST_SPREAD
            scale = np.divide(
                1, self.spread + np.float32(_LEAST_SPREAD), where=alive, out=np.zeros_like(self.spread)
            )
            found *= scale[which]
        length = np.linalg.norm(found, axis=1, keepdims=True)
        found /= np.maximum(length, np.float32(1e-12))
        return in_kind(found, features)


def normalise_cameras(
    features: Any, cameras: Any, mode: Normalisation = "full", shrink: float = SHRINK
) -> Any:
    """Normalise features by the statistics of their own cameras (arXiv 2502.10195).

    Args:
        features: float (n, d), numpy or torch.
        cameras: int (n,), from 0.
        mode: ``none``: they stay as they came; ``centre``: each camera's mean is taken off; ``full``: and
            its spread made one.
        shrink: images at which a camera's own statistics count for half.

    Returns:
        Unit float32 (n, d), in the kind and on the device they came; an image that lies on its camera's mean
        is 0.

    Raises:
        InputError: shapes or values do not fit.
    """
    if mode not in ("none", "centre", "full"):
        raise InputError(f"mode must be none, centre or full, got {mode!r}.")
    if mode == "none":
        return features
    return CameraStatistics.of(features, cameras, shrink).apply(features, cameras, mode)


def _checked(features: Any, cameras: Any) -> tuple[FloatArray, IntArray]:
    values = as_numpy(features)
    if values.ndim != 2 or values.dtype.kind != "f" or not len(values):
        raise InputError(f"features must be float (n, d) with n >= 1, got {values.dtype} {values.shape}.")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    refuse_infinite(~np.isfinite(values).all(axis=1))
    return values, whole_numbers("cameras", cameras, len(values), low=0)
