"""One process trains in a run folder at a time."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from icsr_cli.errors import RunError
from icsr_cli.files import read_json, write_json


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the lock goes with it, however it ends.

    It is a lock of the file system: across hosts it holds as far as theirs does.

    Raises:
        RunError: another process holds it; it is named with its host.
    """
    holder = folder / ".training.json"
    lock = FileLock(folder / ".training.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(
            f"The run {folder} is being trained by {_name(holder)}. Wait for it or stop it first; a new run "
            "takes another --name."
        ) from None
    try:
        who = {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(holder, who)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _name(holder: Path) -> str:
    try:
        who = read_json(holder)
        return f"process {who['process']} on {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
