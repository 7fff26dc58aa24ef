"""The run folder: settings, environment, metrics, labels, checkpoints; every write is whole or not at all."""

from icsr_cli.runs.folder import (
    LoggedProgress,
    RunFolder,
    check_free,
    create,
    find_runs,
    newest,
    open_run,
    run_of,
)
from icsr_cli.runs.labels import (
    LabelTable,
    align_local,
    read_labels,
    table_of,
    tabulate,
    write_labels,
)

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
