"""Checks of the clusterers' options."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from icsr_cli.errors import InputError


def check_count(name: str, value: Any, low: int = 1) -> int:
    """Give ``value`` as an int of at least ``low``, or raise an InputError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}.")
    return int(value)


def check_number(name: str, value: Any, above: float, limit: float, limit_said: str) -> float:
    """Give ``value`` as a float above ``above`` that is at most ``limit``, or raise an InputError."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not above < value <= limit:
        raise InputError(f"{name} must be a number above {above:g}{limit_said}, got {value!r}.")
    return float(value)
