"""What a data set says of the settings of a run on it."""

from collections.abc import Mapping
from typing import Any

from icsr_cli.datasets import folder, synthetic
from icsr_cli.datasets.published import available, benchmark


def settings(name: str, family: str | None = None) -> Mapping[str, Any]:
    """Give the settings of a run that differ for a data set: its own, else those of its ``family``.

    ``family``: ``synthetic``, or ``folder`` for one's own crops (the default).
    """
    if name in available():
        return benchmark(name).run_settings
    return synthetic.SETTINGS if "synthetic" in (name, family) else folder.SETTINGS
