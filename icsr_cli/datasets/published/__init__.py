"""One file per published data set; a new file here is a new data set, found by its name."""

import pkgutil
from functools import cache
from importlib import import_module

from icsr_cli.datasets.layout import Benchmark
from icsr_cli.errors import DatasetError


@cache
def available() -> tuple[str, ...]:
    """Give the names of the published data sets that can be read, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def benchmark(name: str) -> Benchmark:
    """Give what is known of a published data set. Raises DatasetError for an unknown name."""
    if name not in available():
        raise DatasetError(f"There is no published data set {name!r}; there are {', '.join(available())}.")
    found: Benchmark = import_module(f"{__name__}.{name}").BENCHMARK
    return found
