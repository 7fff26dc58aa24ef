"""A layout on disk -> records. Opens no image, knows no torch.

Published data sets are found by the files in ``published``; own crops are read by ``folder``.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from icsr_cli.datasets import published
from icsr_cli.datasets.index import load, names, newest
from icsr_cli.datasets.layout import Benchmark, Reading
from icsr_cli.errors import DatasetError

__all__ = ["Benchmark", "Reading", "available", "benchmark", "load", "names", "newest"]


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
