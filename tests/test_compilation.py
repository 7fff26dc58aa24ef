"""Compiled loops are kept where they can be, and work where they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import icsr_cli
from icsr_cli.compilation import compiled
from icsr_cli.metrics import match_ranks


@pytest.mark.skipif("NUMBA_CACHE_DIR" in os.environ, reason="kept elsewhere")
def test_what_was_compiled_is_kept() -> None:
    kernel: Any = match_ranks._match_ranks_cpu
    assert kernel.stats.cache_path.endswith("__pycache__")


def test_no_place_for_it_is_needed() -> None:
    names: dict[str, Any] = {}
    exec("def twice(number):\n    return 2 * number\n", names)  # of no file: nothing is beside it
    assert compiled()(names["twice"])(21) == 42


TWICE = """
from icsr_cli.compilation import compiled

@compiled()
def twice(number):
    return 2 * number

print(twice(21), sum(twice.stats.cache_hits.values()))
"""


def in_a_process(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Compile ``twice`` with a cache of its own, in at most so many bytes a file."""
    if not (tmp_path / "work.py").exists():  # numba asks when it was written
        (tmp_path / "work.py").write_text(TWICE)
    limit = f"ulimit -f {variables.pop('blocks', 'unlimited')}; exec {sys.executable} work.py"
    package = str(Path(icsr_cli.__file__).parents[1])
    places = {"PYTHONPATH": package, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    environment = {**os.environ, **places, **variables}
    return subprocess.run(
        ["sh", "-c", limit], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


def test_no_fault_of_the_cache_ends_the_work(tmp_path: Path) -> None:
    """A disk that is full meanwhile, then files that are damaged; once they are whole they are used."""
    said = [in_a_process(tmp_path, blocks="0").stdout, in_a_process(tmp_path).stdout]
    for file in (tmp_path / "cache").rglob("*.nb?"):
        file.write_bytes(file.read_bytes()[:20])
    said += [in_a_process(tmp_path).stdout for _ in range(2)]
    assert said == ["42 0\n", "42 0\n", "42 0\n", "42 1\n"]


@pytest.mark.parametrize(
    ("value", "why"), [("0", "Number of threads specified must be > 0"), ("abc", "value 'abc' could not be")]
)
def test_a_variable_that_numba_refuses_is_told_of(tmp_path: Path, value: str, why: str) -> None:
    done = in_a_process(tmp_path, NUMBA_NUM_THREADS=value)
    assert "UsageError: numba refuses a variable NUMBA_* of the environment: " in done.stderr
    assert why in done.stderr.splitlines()[-1]
