"""A layout on disk -> records. Opens no image, knows no torch.

Published data sets are found by the files in ``published``; own crops are read by ``folder``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from icsr_cli.datasets import folder, published, synthetic
from icsr_cli.datasets.index import load, names, newest
from icsr_cli.datasets.layout import Benchmark, Reading
from icsr_cli.errors import DatasetError

__all__ = ["Benchmark", "Reading", "available", "benchmark", "load", "names", "newest", "settings"]


@cache
def available() -> tuple[str, ...]:
    """Give the names of the published data sets that can be read, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(published.__path__)))


def benchmark(name: str) -> Benchmark:
    """Give what is known of a published data set. Raises DatasetError for an unknown name."""
    if name not in available():
        raise DatasetError(f"There is no published data set {name!r}; there are {', '.join(available())}.")
    found: Benchmark = import_module(f"{published.__name__}.{name}").BENCHMARK
    return found


def settings(name: str, family: str | None = None) -> Mapping[str, Any]:
    """Give the settings of a run that differ for a data set: its own, else those of its ``family``.

    ``family``: ``synthetic``, or ``folder`` for one's own crops (the default).
    """
    if name in available():
        own = benchmark(name)
        return {"image": {"height": own.height, "width": own.width}, **own.settings}
    return synthetic.SETTINGS if "synthetic" in (name, family) else folder.SETTINGS
