"""Commands and ranks in processes of their own, forked from one that has imported everything.

Real processes, with signals and exit codes of their own; what they are spared is to import torch again.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

CONTEXT: Any = multiprocessing.get_context("forkserver")
#: What takes seconds to load, and children of a fork then have.
HEAVY = ["torchvision.models", "sklearn.metrics", "faiss"]
CONTEXT.set_forkserver_preload(
    ["icsr_cli.cli.main", "icsr_cli.recipes.opening", "icsr_cli.recipes.training", *HEAVY]
)
#: Threads and the memory of a GPU do not survive a fork.
FORKABLE = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "CUDA_VISIBLE_DEVICES": "",
}
#: Seconds after which a process is taken for one that hangs.
LIMIT = 600


class Forked:
    """A process that calls ``work(*arguments)``; what it prints goes into two files beside each other."""

    def __init__(self, output: Path, work: Callable[..., object], *arguments: Any, **variables: str) -> None:
        self._files = (output.with_name(f"{output.name}.out"), output.with_name(f"{output.name}.err"))
        environment = {**os.environ, **FORKABLE, **variables}
        self.process = CONTEXT.Process(target=_begin, args=(self._files, environment, work, arguments))
        with pytest.MonkeyPatch.context() as patch:  # the process that forks begins with its first child
            for name, value in FORKABLE.items():
                patch.setenv(name, value)
            self.process.start()

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def errors(self) -> str:
        """Give what it has said so far."""
        return self._files[1].read_text() if self._files[1].exists() else ""

    def end(self, code: int = 0) -> tuple[str, str]:
        """Wait until it has ended with ``code``; gives its output and its errors."""
        self.process.join(LIMIT)
        self.process.kill()
        self.process.join()
        output, errors = (file.read_text() for file in self._files)
        assert self.process.exitcode == code, errors
        return output, errors


def _begin(
    files: tuple[Path, Path], environment: dict[str, str], work: Callable[..., object], arguments: Any
) -> None:
    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    # What it starts is forked from the same server, whose address it has; it would make one of its own.
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
    import torch

    torch.set_num_threads(1)
    for shown in (FutureWarning, UserWarning):  # as the user of a command would be
        warnings.simplefilter("error", shown)
    work(*arguments)


def icsr(words: list[str]) -> None:
    """The executable, typed with these words."""
    from icsr_cli.cli.main import run

    sys.argv = ["icsr", *words]
    run()


def script(file: Path, words: list[str]) -> None:
    """A Python file as a program; other processes of its own that it starts are forked, too."""
    start = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if str(file) not in command:
            return start(command, **options)
        said, own = Path(tempfile.mkdtemp()) / "said", command[command.index(str(file)) + 1 :]
        for word in command:
            if word.startswith("--nproc-per-node="):
                run_ranks(int(word.partition("=")[2]), said, script, file, own)
                return subprocess.CompletedProcess(command, 0)
        return subprocess.CompletedProcess(command, 0, *Forked(said, script, file, own).end())

    subprocess.run = run  # type: ignore[assignment]
    multiprocessing.get_context = lambda _: CONTEXT  # type: ignore[assignment]
    sys.argv = [str(file), *words]
    runpy.run_path(str(file), run_name="__main__")


def run_ranks(
    size: int, folder: Path, work: Callable[..., object], *arguments: Any, code: int = 0
) -> list[tuple[str, str]]:
    """Call ``work`` in so many processes that find each other as those of ``torchrun`` do."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    place = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    folder.mkdir(parents=True, exist_ok=True)
    ranks = [
        Forked(folder / f"rank{rank}", work, *arguments, **place, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(size)
    ]
    return [rank.end(code) for rank in ranks]
