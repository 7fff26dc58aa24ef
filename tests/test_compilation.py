"""Compiled loops are kept where they can be, and work where they cannot."""

from __future__ import annotations

import os
from typing import Any

import pytest

from icsr_cli.compilation import compiled
from icsr_cli.metrics import match_ranks


@pytest.mark.skipif("NUMBA_CACHE_DIR" in os.environ, reason="kept elsewhere")
def test_what_was_compiled_is_kept() -> None:
    kernel: Any = match_ranks._match_ranks_cpu
    assert kernel.stats.cache_path.endswith("__pycache__")


def test_no_place_for_it_is_needed() -> None:
    names: dict[str, Any] = {}
    exec("def twice(number):\n    return 2 * number\n", names)  # of no file: nothing is beside it
    assert compiled()(names["twice"])(21) == 42
