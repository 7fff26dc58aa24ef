"""What every function of this room asks of its features.

On the CPU the room works on numpy arrays and needs no torch; elsewhere on torch tensors.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from icsr_cli.checks import as_numpy
from icsr_cli.errors import InputError, reason
from icsr_cli.types import FloatArray

if TYPE_CHECKING:
    import torch

_FLOAT = np.finfo(np.float32)
#: Ways to find neighbours approximately.
Index = Literal["hnsw", "int8", "ivf"]


def check_features(features: Any, device: Any = None) -> FloatArray | torch.Tensor:
    """Give ``features`` as contiguous float32 (n, d): a numpy array on the CPU, else a tensor.

    ``device`` is where to compute; default: where the features are. What fits already is not copied.
    Raises InputError where they are no 2-D array of numbers, have no rows or columns, or rows that are NaN,
    infinite, longer than 9e18 or shorter than 1e-19.
    """
    if is_tensor(features):
        kind = features.dtype
        numbers = kind.is_floating_point or not (kind.is_complex or str(kind) == "torch.bool")
    else:
        features = np.asarray(features)
        kind, numbers = features.dtype, features.dtype.kind in "fiu"
    if not numbers:
        raise InputError(f"features must be an array of numbers, got dtype {kind}.")
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(
            f"features must have shape (n, d) with n >= 1 and d >= 1, got {tuple(features.shape)}."
        )
    result = _placed(features, device)
    # Squared distances are up to four times as large; numbers below the smallest normal one lose digits.
    squares = as_numpy(squared_lengths(result))
    bad, short = ~(squares <= _FLOAT.max / 4), squares < _FLOAT.tiny
    refuse_infinite(bad)
    if short.any():
        raise InputError(
            f"features must not hold zero vectors, {_rows(short)} are zero or shorter than 1e-19. "
            "Leave those images out, or look at the network that gave these features."
        )
    return result


def is_tensor(features: Any) -> bool:
    """Tell whether this is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(features, torch.Tensor)


def _placed(features: Any, device: Any) -> FloatArray | torch.Tensor:
    if is_tensor(features):
        target = features.device if device is None else device
        features = features.detach().to(device=target).float().contiguous()
        elsewhere = features.device.type != "cpu"
        return features if elsewhere else np.asarray(features.numpy(), dtype=np.float32)
    array: FloatArray = np.ascontiguousarray(features, dtype=np.float32)
    if device is None or str(device) == "cpu":
        return array
    import torch

    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used: {reason(error)}") from None


def squared_lengths(features: Any) -> Any:
    """Give the sum of squares of each row, (n,), without a copy of the features."""
    if isinstance(features, np.ndarray):
        with np.errstate(over="ignore", invalid="ignore"):
            return np.einsum("ij,ij->i", features, features)
    import torch

    return torch.linalg.vector_norm(features, dim=1).square()


def unit_rows(features: Any) -> Any:
    """Divide each row by its length; nothing is copied where all are of length 1 to 3e-6 already."""
    lengths = squared_lengths(features) ** 0.5
    if bool((abs(lengths - 1) <= 3e-6).all()):
        return features
    return features / lengths[:, None]


def refuse_infinite(bad: Any) -> None:
    """Raise an InputError that names the rows of features that a mask (n,) marks, if any."""
    if bad.any():
        raise InputError(f"features must be finite, {_rows(bad)} hold NaN, infinite or overflowing numbers.")


def _rows(mask: Any) -> str:
    rows = np.flatnonzero(mask).tolist()
    shown = ", ".join(str(row) for row in rows[:5])
    return f"{len(rows)} rows ({shown}{', ...' if len(rows) > 5 else ''})"
