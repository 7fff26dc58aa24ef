"""Runs commands in forked children of a process that has imported everything, and kills them.

Reads one JSON object per line: ``arguments`` of the command line, and either ``after`` (seconds until
SIGKILL), or ``within`` (the moment of writing a file at which the child kills itself), or neither. Answers
with one JSON object: ``code`` (negative for a signal), ``seconds``. What the last child printed is in the
file named by the first argument.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import signal
import sys
import time
import traceback
from typing import Any

#: Threads of the GPU's driver, which a child never asks, and of an allocator that knows what a fork is.
IDLE = ("cuda", "jemalloc")


class Dying(io.FileIO):
    """A file whose writer dies by SIGKILL once ``left`` bytes are in it."""

    def __init__(self, path: pathlib.Path, left: int) -> None:
        super().__init__(path, "w")
        self._left = left

    def write(self, data: Any) -> int:
        written = super().write(memoryview(data).cast("B")[: self._left])
        self._left -= written
        if self._left == 0:
            die()
        return written


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Trap:
    """Kills the process when it writes the file ``name`` for the ``occasion``-th time.

    ``moment`` is ``half`` (``size`` bytes are in the temporary file), ``whole`` (all of them, under the
    temporary name) or ``renamed`` (the file is in place, whatever follows it is not).
    """

    def __init__(self, name: str, occasion: int, moment: str, size: int) -> None:
        self.name, self.left, self.moment, self.size = name, occasion, moment, size
        self._open, self._replace = pathlib.Path.open, pathlib.Path.replace

    def set(self) -> None:
        trap = self

        def open_(path: pathlib.Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            temporary = path.name.startswith(f".{trap.name}.") and path.name.endswith(".tmp")
            if trap.moment == "half" and temporary and "w" in mode and trap.came():
                raw = io.BufferedWriter(Dying(path, trap.size))
                return raw if "b" in mode else io.TextIOWrapper(raw, encoding="utf-8", newline="")
            return trap._open(path, mode, *arguments, **options)

        def replace(path: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
            here = trap.moment != "half" and target.name == trap.name and trap.came()
            if here and trap.moment == "whole":
                die()
            done = trap._replace(path, target)
            if here:
                die()
            return done

        pathlib.Path.open, pathlib.Path.replace = open_, replace  # type: ignore[method-assign,assignment]

    def came(self) -> bool:
        self.left -= 1
        return self.left == 0


def command(arguments: list[str]) -> int:
    from icsr_cli.cli.main import app

    try:
        app(arguments)
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


def in_child(arguments: list[str], within: dict[str, Any] | None) -> None:
    """Run a command and end the process, whatever happens."""
    code = 99
    try:
        os.ftruncate(1, 0)
        if within is not None:
            Trap(**within).set()
        code = command(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def attempt(
    arguments: list[str], after: float | None = None, within: dict[str, Any] | None = None
) -> dict[str, float]:
    """Fork, wait, kill: gives how the child ended and its seconds."""
    names = [(task / "comm").read_text().strip() for task in pathlib.Path("/proc/self/task").iterdir()]
    threads = [name for name in names if not name.startswith(IDLE)]
    assert len(threads) == 1, f"{threads} run: a child would have one of them, and locks of the others"
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        in_child(arguments, within)
    status = None
    while status is None:
        done, found = os.waitpid(child, 0 if after is None else os.WNOHANG)
        if done:
            status = found
        elif time.monotonic() - started >= (after or 0):
            os.kill(child, signal.SIGKILL)
            after = None
        else:
            time.sleep(0.001)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}


def serve(output: str) -> None:
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for line in sys.stdin:
        request = json.loads(line)
        if request.pop("here", False):  # loads libraries and compiled code once for every child
            answer: dict[str, float] = {"code": command(request["arguments"])}
        else:
            answer = attempt(**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
