"""A layout on disk -> records. Opens no image, knows no torch.

Published data sets are found by the files in ``published``; own crops are read by ``folder``.
"""

from collections.abc import Mapping
from typing import Any

from icsr_cli.datasets import folder, synthetic
from icsr_cli.datasets.index import load, names, newest
from icsr_cli.datasets.layout import Benchmark, Reading
from icsr_cli.datasets.published import available, benchmark

__all__ = ["Benchmark", "Reading", "available", "benchmark", "load", "names", "newest", "settings"]


def settings(name: str, family: str | None = None) -> Mapping[str, Any]:
    """Give the settings of a run that differ for a data set: its own, else those of its ``family``.

    ``family``: ``synthetic``, or ``folder`` for one's own crops (the default).
    """
    if name in available():
        return benchmark(name).run_settings
    return synthetic.SETTINGS if "synthetic" in (name, family) else folder.SETTINGS
