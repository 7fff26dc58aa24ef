"""A layout on disk -> records. Opens no image, knows no torch.

Published data sets are found by the files in ``published``; own crops are read by ``folder``.
"""

from icsr_cli.datasets.index import load, names, newest
from icsr_cli.datasets.layout import Benchmark, Reading
from icsr_cli.datasets.published import available, benchmark
from icsr_cli.datasets.run_settings import settings

__all__ = ["Benchmark", "Reading", "available", "benchmark", "load", "names", "newest", "settings"]
