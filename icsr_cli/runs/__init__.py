"""The run folder: settings, environment, metrics, labels, checkpoints; every write is whole or not at all."""

from icsr_cli.runs.folder import RunFolder
from icsr_cli.runs.labels import (
    LabelTable,
    align_local,
    read_labels,
    table_of,
    tabulate,
    write_labels,
)
from icsr_cli.runs.log import LoggedProgress
from icsr_cli.runs.places import check_free, create, find_runs, newest, open_run, run_of

__all__ = [
    "LabelTable",
    "LoggedProgress",
    "RunFolder",
    "align_local",
    "check_free",
    "create",
    "find_runs",
    "newest",
    "open_run",
    "read_labels",
    "run_of",
    "table_of",
    "tabulate",
    "write_labels",
]
