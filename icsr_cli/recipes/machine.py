"""What the machine is: processor, memory, GPUs, room on the disk. Imports nothing heavy."""

import importlib
import os
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from icsr_cli.recipes.installation import State
from icsr_cli.runs.environment import processor
from icsr_cli.threads import usable_cpus

#: Pixels of MSMT17 at 256 x 128 are 12 GB; its archive and what is unpacked come on top.
_LITTLE_DISK: Final = 20e9


@dataclass(frozen=True)
class Gpu:
    """One GPU that torch can use; bytes."""

    name: str
    memory: int
    free: int
    capability: str


@dataclass(frozen=True)
class Folder:
    """A folder that is, or would be, written to; ``free`` in bytes, None where nothing can be said."""

    purpose: str
    path: Path
    free: int | None
    state: State
    advice: str = ""


@dataclass(frozen=True)
class Machine:
    """The processor, memory and GPUs; ``driver`` is NVIDIA's, None without one; bytes."""

    python: str
    platform: str
    processor: str
    cpus: int
    memory: int
    memory_free: int
    gpus: tuple[Gpu, ...]
    driver: str | None
    cuda: str | None
    faiss_gpus: int | None
    numba_threads: int | None


def look_at_machine(*, torch_works: bool = True) -> Machine:
    """Look at the processor, memory and GPUs."""
    total, free = memory_bytes()
    gpus: tuple[Gpu, ...] = ()
    cuda = None
    if torch_works:
        import torch

        cuda = torch.version.cuda
        gpus = tuple(_look_at_gpu(number) for number in range(torch.cuda.device_count()))
    return Machine(
        python=platform.python_version(),
        platform=platform.platform(),
        processor=processor(),
        cpus=usable_cpus(),
        memory=total,
        memory_free=free,
        gpus=gpus,
        driver=_driver(),
        cuda=cuda,
        faiss_gpus=_asked("faiss", lambda faiss: faiss.get_num_gpus()) if torch_works else None,
        numba_threads=_asked("numba", lambda numba: numba.config.NUMBA_NUM_THREADS),
    )


def _look_at_gpu(number: int) -> Gpu:
    import torch

    properties = torch.cuda.get_device_properties(number)
    try:
        free, total = torch.cuda.mem_get_info(number)
    except RuntimeError:  # another process owns it, or it is broken
        free, total = 0, properties.total_memory
    return Gpu(properties.name, total, free, f"{properties.major}.{properties.minor}")


def _asked(library: str, question: Callable[[Any], Any]) -> int | None:
    """Ask a library for a number; None where it is broken (told of elsewhere) or has none to give."""
    try:
        return int(question(importlib.import_module(library)))
    except Exception:
        return None


def _driver() -> str | None:
    """Read the version of NVIDIA's kernel driver, without starting a program."""
    text = _read("/proc/driver/nvidia/version")
    match = re.search(r"Kernel Module\D*([0-9][0-9.]+)", text)
    return match[1] if match else "unknown" if text else None


def memory_bytes() -> tuple[int, int]:
    """Give the memory, and what of it is free, in bytes; a container's limit counts."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and int(limit) < total:
        total = int(limit)
        free = min(free, max(0, total - int(used))) if used.isdigit() else free
    return total, free


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def look_at_folder(purpose: str, path: Path) -> Folder:
    """Tell how much room there is, and whether it can be written to; it need not exist yet."""
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Folder(purpose, path, None, "warning", f"It cannot be looked at: {error.strerror}.")
    option = {"data": "--data-root", "runs": "--runs"}[purpose]
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Folder(purpose, path, free, "bad", f"It cannot be written to. Choose another: {option}.")
    if free < _LITTLE_DISK:
        advice = f"Little room for a published data set or many runs; {option} chooses another place."
        return Folder(purpose, path, free, "warning", advice)
    return Folder(purpose, path, free, "ok")
