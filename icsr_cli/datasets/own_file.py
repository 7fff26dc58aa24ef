"""A data set in a file of the user's own: it defines ``BENCHMARK``, as those in ``published`` do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icsr_cli.choices import run_plugin
from icsr_cli.datasets.layout import SPLITS, Benchmark, Reading
from icsr_cli.errors import DatasetError, IcsrError, UsageError


@dataclass(frozen=True)
class OwnFile:
    """What a file of the user's own defines; ``digest`` is the SHA-256 of what was run."""

    path: Path
    digest: str
    benchmark: Benchmark

    @classmethod
    def load(cls, path: Path) -> OwnFile:
        """Run the file.

        Raises UsageError where it cannot be run, defines no data set, or its settings are no plain values.
        """
        module, digest = run_plugin(path)
        found = getattr(module, "BENCHMARK", None)
        if not isinstance(found, Benchmark):
            raise UsageError(
                f"{path} is no data set: it must define BENCHMARK = icsr_cli.datasets.Benchmark(...)."
            )
        try:
            json.dumps(dict(found.settings))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"The settings of the data set in {path} are no plain values: {error}."
            ) from None
        return cls(path, digest, found)

    def read(self, start: Path) -> Reading:
        """Locate and read the data set, and check what the reader gives.

        Raises DatasetError where it is not there, or its reader fails.
        """
        try:
            reading = self.benchmark.read(start)
            fault = _fault(reading)
        except IcsrError:
            raise
        except Exception as error:
            raise DatasetError(f"The reader in {self.path} fails: {type(error).__name__}: {error}") from error
        if fault:
            raise DatasetError(f"The reader in {self.path} gives {fault}.")
        return reading


def _fault(reading: Any) -> str:
    """Say what is wrong with a reading, or nothing."""
    if not isinstance(reading, Reading):
        return f"a {type(reading).__name__}, not a Reading"
    if unknown := [name for name in reading.splits if name not in SPLITS]:
        return f"a split {unknown[0]!r}; there are {', '.join(SPLITS)}"
    if not reading.splits.get("train"):
        return "no image to train on"
    for records in reading.splits.values():
        for record in records:
            if not 0 <= record.camera < len(reading.camera_names):
                return (
                    f"{record.path} the camera {record.camera}, of {len(reading.camera_names)} camera_names"
                )
            if "\0" in record.path:
                return f"{record.path!r}, and no file has a NUL in its path"
    return ""
