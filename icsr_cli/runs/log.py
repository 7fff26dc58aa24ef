"""``log.txt`` of a run: what was reported, with times."""

import time
from collections.abc import Mapping

from icsr_cli.errors import RunError, printable
from icsr_cli.files import regular
from icsr_cli.progress import Figure, Progress, Task
from icsr_cli.runs.folder import RunFolder


class LoggedProgress(Progress):
    """Passes everything on, and writes reports, notes and warnings to the run's ``log.txt``."""

    def __init__(self, run: RunFolder, below: Progress) -> None:
        self._path, self._below = run.path / "log.txt", below
        try:
            regular(self._path)
        except OSError as error:
            raise RunError(f"{self._path} cannot be written to: {error.strerror}. Remove it.") from None

    def task(self, title: str, total: int, unit: str = "it") -> Task:
        """Open a bar; bars are not logged."""
        return self._below.task(title, total, unit)

    def report(self, title: str, figures: Mapping[str, Figure]) -> None:
        """Log and pass on."""
        self._log(f"{title}  " + "  ".join(f"{name}={value}" for name, value in figures.items()))
        self._below.report(title, figures)

    def note(self, message: str) -> None:
        """Log and pass on."""
        self._log(message)
        self._below.note(message)

    def warn(self, message: str) -> None:
        """Log and pass on."""
        self._log(f"Warning: {message}")
        self._below.warn(message)

    def _log(self, text: str) -> None:
        # One write of one line to a file opened for appending: other processes may log beside us.
        with self._path.open("ab", buffering=0) as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {printable(text)}\n".encode())
