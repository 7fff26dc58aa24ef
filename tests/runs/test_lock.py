"""One process trains in a run folder; the lock goes with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from icsr_cli.errors import RunError
from icsr_cli.runs.lock import training_lock

HOLD = """
import sys, time
from pathlib import Path
from icsr_cli.runs.lock import training_lock
with training_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_is_named_and_its_lock_dies_with_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(
            RunError, match=f"being trained by process {process.pid} on {os.uname().nodename}"
        ):
            training_lock(tmp_path).__enter__()
        process.send_signal(signal.SIGKILL)
    with training_lock(tmp_path):
        assert (tmp_path / ".training.json").is_file()
    assert not (tmp_path / ".training.json").exists()
    os.mkfifo(tmp_path / ".training.json")
    with training_lock(tmp_path):
        assert (tmp_path / ".training.json").is_file()
