"""What all tests share: one thread each, and a tiny rendered world."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from icsr_cli.types import Dataset

# Read when numpy and torch are loaded: here, later, and in the processes that tests start.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# Files lie in memory where it has room: on a disk each of thousands would be waited for, to be safe there.
_MEMORY = "/dev/shm"
if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 2**33:
    os.environ["TMPDIR"] = tempfile.tempdir = _MEMORY  # this process has asked where they go already


@pytest.hookimpl(optionalhook=True)  # xdist need not be there
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores, of which eight are enough: some tests wait for the processes that they start."""
    return min(os.cpu_count() or 1, 8) + 1


@pytest.fixture(autouse=True)
def _no_plugin_stays() -> Iterator[None]:
    """Forget what a test has plugged in: others ask for all methods that there are."""
    yield
    if "icsr_cli.choices" in sys.modules:
        sys.modules["icsr_cli.choices"]._plugins.clear()


@pytest.fixture(scope="session", autouse=True)
def _commands_once() -> Iterator[None]:
    """Make the commands of a Typer once, not for each line that is typed: it takes a tenth of a second."""
    from typer import testing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testing, "_get_command", functools.cache(testing._get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_width() -> None:
    """Let tables be as wide as in a pipe: workers of xdist are given the width of the terminal."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run beside each other: more threads would only fight."""
    import torch

    torch.set_num_threads(1)
    # pytest listens to every logger there is: for this one torch would write out each graph that it exports.
    trace = logging.root.manager.loggerDict.pop("torch.__trace", None)
    if isinstance(trace, logging.Logger):
        trace.handlers.clear()


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with one prepared data set, `tiny`: 6 + 6 people under 3 cameras, 32 x 16 pixels."""
    from icsr_cli.recipes.preparation import prepare_synthetic
    from icsr_cli.synthesis import World

    root = tmp_path_factory.mktemp("data")
    world = World(
        train_identities=6,
        test_identities=6,
        cameras=3,
        cameras_per_person=(2, 3),
        images=(3, 4),
        distractors=3,
        junk=2,
        height=32,
        width=16,
        seed=3,
    )
    prepare_synthetic(world, root, name="tiny", workers=1)
    return root


@pytest.fixture(scope="session")
def tiny(tiny_root: Path) -> Dataset:
    """The records of the tiny data set."""
    from icsr_cli import datasets

    return datasets.load("tiny", tiny_root)


@pytest.fixture(scope="session")
def onnx_operators_once() -> Iterator[None]:
    """Collect the operators of ONNX once for all exports of this process: a third of the time of each.

    Where torch keeps them elsewhere, or onnxscript is not there, nothing is spared and every test runs.
    """
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError, AttributeError):
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            patch.setattr(
                ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib))
            )
        yield
