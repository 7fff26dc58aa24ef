"""Faults in the middle of training, from the command line: message, exit code, what is left, going on.

Each fault strikes in the second epoch. The state of the first is untouched, and once the fault is gone
``--resume`` ends as a run without it.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import numpy as np
import pytest
import torch
from forked import Forked
from in_process import icsr
from PIL import Image
from same_run import assert_same_run
from tiny_world import TINY
from typer.testing import Result

import icsr_cli
from icsr_cli.clusterers import dbscan
from icsr_cli.errors import DatasetError
from icsr_cli.models import Network
from icsr_cli.processes import in_processes
from icsr_cli.runs import RunFolder, folder
from icsr_cli.threads import usable_cpus

#: As the network looks at the images in both stages: once before an epoch; and, on a GPU too, in each step.
ASSIGNMENTS = (*TINY, "global.label_norm=running", "cuda_graph=false")
SETTINGS = [word for assignment in ASSIGNMENTS for word in ("--set", assignment)]
STAGES = ("cam", "global")
Patch = pytest.MonkeyPatch
resource = pytest.importorskip("resource", reason="limits of a process")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


class Runs:
    """A folder of runs, with one uninterrupted run of each stage."""

    def __init__(self, root: Path, data_root: Path) -> None:
        self.root, self.places = root, ["--data-root", data_root, "--runs", root]
        for stage in STAGES:
            result = icsr(*self.command(stage, "whole"))
            assert result.exit_code == 0, result.output

    def command(self, stage: str, name: str) -> list[object]:
        local = ["--init", "cam", "--local", self.folder("cam", "whole")] if stage == "global" else []
        return ["train", stage, "-d", "tiny", *SETTINGS, *local, "--name", name, *self.places]

    def folder(self, stage: str, name: str) -> Path:
        return self.root / "tiny" / stage / name


@pytest.fixture(scope="module")
def runs(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), tiny_root)


def assert_said(result: Result, words: str) -> None:
    assert result.exit_code == 1, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def assert_first_epoch_is_safe(run: Path, status: str = "failed") -> None:
    folder = RunFolder(run)
    state = folder.load_state("shared" if folder.stage == "cam" else "global")
    assert state is not None
    assert state["epoch"] == 1
    assert folder.info()["status"] == status
    assert not list(run.rglob("*.tmp"))


def nth_call(function: Callable[..., Any], number: int, fault: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``fault`` answer the ``number``-th call of ``function`` in its place."""
    calls = [0]

    def called(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        return (fault if calls[0] == number else function)(*arguments, **options)

    return called


def fails(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


# In an epoch the network looks at 3 batches of training, and once before (features) and after (a check).
TRAINING, FEATURES = 8, 6
FORWARD = Network.forward
GPU_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


def in_the_network(number: int, fault: Callable[..., Any]) -> Callable[[Patch], None]:
    def install(patch: Patch) -> None:
        calls = nth_call(Network.forward, number, fault)
        patch.setattr(Network, "forward", lambda *arguments: calls(*arguments))

    return install


def nan_features(network: Network, images: torch.Tensor) -> torch.Tensor:
    return FORWARD(network, images) * torch.nan


def all_noise(patch: Patch) -> None:
    noise = nth_call(dbscan.cluster, 2, lambda evidence, options: np.full(len(evidence), -1, dtype=np.int64))
    patch.setattr(dbscan, "cluster", noise)


class NoRoom(io.BytesIO):
    """A buffer that cannot grow by much."""

    def write(self, content: Any) -> int:
        if len(content) > 50_000:
            raise MemoryError
        return super().write(content)


def no_buffer(patch: Patch) -> None:
    buffers = nth_call(io.BytesIO, 2, NoRoom)
    patch.setattr(folder, "io", SimpleNamespace(BytesIO=buffers))


def full_disk(file: str, number: int) -> Callable[[Patch], None]:
    """Let the disk be full when ``file`` is flushed for the ``number``-th time."""

    def install(patch: Patch) -> None:
        left, sync = [number], os.fsync

        def flush(descriptor: int) -> None:
            name = Path(f"/proc/self/fd/{descriptor}").readlink().name
            if name.startswith(f".{file}."):
                left[0] -= 1
                if left[0] == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)

        patch.setattr(os, "fsync", flush)

    return install


FAULTS = {
    "nan": (
        in_the_network(TRAINING, nan_features),
        STAGES,
        "start a new run with a smaller learning rate (--lr)",
    ),
    "gpu memory, training": (
        in_the_network(TRAINING, fails(GPU_MEMORY)),
        STAGES,
        "the GPU is out of memory (CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...). "
        "Take a smaller batch (-b), half the precision on a GPU (--precision bf16)",
    ),
    "gpu memory, features": (
        in_the_network(FEATURES, fails(GPU_MEMORY)),
        STAGES,
        "--set evaluation.batch_size=64: that one may change with --resume",
    ),
    "torch's memory": (
        in_the_network(TRAINING, lambda *arguments: torch.empty(2**58)),
        STAGES,
        "Take a smaller batch (-b)",
    ),
    "numpy's memory": (
        in_the_network(TRAINING, lambda *arguments: np.empty(2**58)),
        STAGES,
        "Take a smaller batch (-b)",
    ),
    "memory, checkpoint": (no_buffer, STAGES, "Take a smaller batch (-b)"),
    "noise": (all_noise, ("global",), "Every one of the 48 images is noise"),
    "full disk, metrics": (full_disk("metrics.jsonl", 2), STAGES, "the disk is full"),
    "full disk, cam checkpoint": (full_disk("shared.pt", 2), ("cam",), "the disk is full"),
    "full disk, global checkpoint": (full_disk("global.pt", 2), ("global",), "the disk is full"),
    "full disk, labels": (full_disk("epoch_002.csv", 1), ("global",), "the disk is full"),
    "full disk, weights": (full_disk("last.safetensors", 2), ("global",), "No space left on device"),
}
CASES = [(name, stage) for name, (_, stages, _) in FAULTS.items() for stage in stages]


@pytest.mark.parametrize(("fault", "stage"), CASES)
def test_a_fault_leaves_the_last_good_state(runs: Runs, monkeypatch: Patch, fault: str, stage: str) -> None:
    install, _, words = FAULTS[fault]
    name = fault.replace(" ", "-")
    with monkeypatch.context() as patch:
        install(patch)
        assert_said(icsr(*runs.command(stage, name)), words)
    assert_first_epoch_is_safe(runs.folder(stage, name))
    again = icsr(*runs.command(stage, name), "--resume")
    assert again.exit_code == 0, again.output
    assert_same_run(runs.folder(stage, name), runs.folder(stage, "whole"))


def test_a_smaller_batch_of_extraction_may_go_on_with_a_run(runs: Runs, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        in_the_network(FEATURES, fails(GPU_MEMORY))(patch)
        assert_said(icsr(*runs.command("cam", "small")), "evaluation.batch_size")
    smaller = icsr(*runs.command("cam", "small"), "--resume", "--set", "evaluation.batch_size=7")
    assert smaller.exit_code == 0, smaller.output
    assert RunFolder(runs.folder("cam", "small")).settings()["evaluation"]["batch_size"] == 7


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_that_breaks_the_network_is_not_saved(runs: Runs, stage: str) -> None:
    """The only loss of the epoch is finite; what the step makes of the network is not."""
    broken = ["--set", f"{stage}.iters=1", "--lr", "1e30"]
    assert_said(icsr(*runs.command(stage, "broken"), *broken), "not finite")
    assert not (runs.folder(stage, "broken") / "checkpoints").exists()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_whose_write_stops_halfway(runs: Runs, monkeypatch: Patch, stage: str) -> None:
    """The system itself refuses to let the file grow."""
    save = RunFolder.save_state
    half = (runs.folder(stage, "whole") / "last.safetensors").stat().st_size  # a checkpoint is thrice that

    def limited(*arguments: Any) -> None:
        with largest_file(half):
            save(*arguments)

    with monkeypatch.context() as patch:
        calls = nth_call(save, 2, limited)
        patch.setattr(RunFolder, "save_state", lambda *arguments: calls(*arguments))
        assert_said(icsr(*runs.command(stage, "halfway")), "a file is larger than allowed here")
    assert_first_epoch_is_safe(runs.folder(stage, "halfway"))
    assert icsr(*runs.command(stage, "halfway"), "--resume").exit_code == 0
    assert_same_run(runs.folder(stage, "halfway"), runs.folder(stage, "whole"))


def may_mount() -> bool:
    """Whether this user may mount a small file system that only one process and its children see."""
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return False
    attempt = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


SMALL_DISK = """
import json, shutil, subprocess, sys
from in_process import icsr
size, disk, run, copy, *words = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
full = icsr(*words, "--runs", disk)
left = subprocess.run(["ls", "-A", f"{run}/checkpoints"], capture_output=True, text=True).stdout.split()
status = json.load(open(f"{run}/run.json"))["status"]
subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
then = icsr(*words, "--runs", disk, "--resume")
shutil.copytree(run, copy)
print(json.dumps([full.exit_code, full.stderr, status, left, then.exit_code]))
"""


@pytest.mark.skipif(not may_mount(), reason="this user may not mount a file system of their own")
def test_a_disk_that_is_really_full(runs: Runs, tmp_path: Path) -> None:
    """A disk with room for one checkpoint and a half."""
    disk, copy, whole = tmp_path / "disk", tmp_path / "copy", runs.folder("cam", "whole")
    disk.mkdir()
    size = (whole / "last.safetensors").stat().st_size * 9 // 2
    search = [str(Path(icsr_cli.__file__).parents[1]), *sys.path]
    places = [size, disk, disk / "tiny" / "cam" / "small-disk", copy]
    command = [sys.executable, "-c", SMALL_DISK, *places, *runs.command("cam", "small-disk")]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(search)},
        timeout=900,
        check=True,
    )
    code, said, status, left, code_then = json.loads(done.stdout)
    assert (code, status, left, code_then) == (1, "failed", ["shared.pt"], 0)
    assert "Error: the disk is full" in said
    assert "Traceback" not in said
    assert_same_run(copy, whole)


@pytest.mark.parametrize(
    ("full", "words"),
    [
        ("train-64x16.json", "train-64x16.npy: No space left on device"),
        ("run.json", "the disk is full ({}/run.json)"),
        ("settings.yaml", "the disk is full ({}/settings.yaml)"),
        ("environment.json", "the disk is full ({}/environment.json)"),
    ],
)
def test_a_run_that_cannot_begin_leaves_no_folder(
    runs: Runs, monkeypatch: Patch, full: str, words: str, tmp_path: Path
) -> None:
    options = ["--set", "image.height=64", "--set", "image.width=16", "--runs", tmp_path]
    with monkeypatch.context() as patch:
        full_disk(full, 1)(patch)
        said = words.format(tmp_path / "tiny" / "cam" / "first")
        assert_said(icsr(*runs.command("cam", "first"), *options), said)
    assert list((tmp_path / "tiny" / "cam").iterdir()) == []


def make_crops(folder: Path, per_camera: list[int]) -> Path:
    """Crops of noise in a colour of their own, so many under each camera."""
    random = np.random.default_rng(4)
    for camera, count in enumerate(per_camera):
        (folder / str(camera)).mkdir(parents=True)
        for number in range(count):
            colour = random.integers(0, 256, 3)
            pixels = np.clip(colour + random.normal(0, 20, (8, 4, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / str(camera) / f"{number}.png")
    return folder


def prepare(tmp_path: Path, per_camera: list[int]) -> list[object]:
    source = make_crops(tmp_path / "crops", per_camera)
    places = ["--data-root", tmp_path / "data"]
    pattern = ["--pattern", "{camera}/{name}.png", "--size", "16x8", "--workers", "1"]
    result = icsr("prepare", "folder", "mine", "--source", source, *pattern, *places)
    assert result.exit_code == 0, result.output
    return [*places, "--runs", tmp_path / "runs"]


TINY_NETWORK = [
    word
    for stage in STAGES
    for key in ("arch=resnet_small", "weights=none", "stripes=4")
    for word in ("--set", f"{stage}.model.{key}")
]


def child_that_decodes(process: int) -> int | None:
    """Give a process of the decoding pool (not the one that minds its semaphores)."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    found = [child for child in children if "spawn_main" in command_line(child)]
    return int(found[0]) if found else None


def command_line(process: str) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:  # ended meanwhile
        return ""


@pytest.mark.skipif(usable_cpus() < 2, reason="with one processor there is no pool")
def test_a_killed_worker_of_the_decoding_pool(tmp_path: Path) -> None:
    places = prepare(tmp_path, [550, 550])
    size = ["--set", "image.height=32", "--set", "image.width=16"]  # not the prepared one: decoded anew
    options = [*SETTINGS, *TINY_NETWORK, *size, "--epochs", "1", "--set", "cam.epochs=1", "--name", "a"]
    command = ["train", "cam", "-d", "mine", *options, "--network", "shared", *places]
    training = Forked(tmp_path / "said", forked.icsr, [str(word) for word in command])
    process, worker, deadline = training.process, None, time.monotonic() + 300
    while worker is None and process.is_alive() and time.monotonic() < deadline:
        worker = child_that_decodes(process.pid)
        time.sleep(0.001)
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    errors = training.end(1)[1]
    assert "A process that reads images was killed" in errors
    assert "Traceback" not in errors
    stores = tmp_path / "data" / "mine" / "pixels"
    assert not list(stores.glob("train-32x16.json"))
    assert not list(stores.glob("train-32x16.npy"))
    assert not (tmp_path / "runs/mine/cam/a").exists()  # nothing was trained
    again = icsr(*command)
    assert again.exit_code == 0, again.output
    assert len(np.load(stores / "train-32x16.npy", mmap_mode="r")) == 1100


def test_a_camera_of_one_image(tmp_path: Path) -> None:
    places = prepare(tmp_path, [30, 1, 30])
    options = ["-d", "mine", *SETTINGS, *TINY_NETWORK, *places]
    cam = icsr("train", "cam", *options)
    assert cam.exit_code == 0, cam.output
    assert "camera 1 has 1 image, too few to cluster" in cam.stderr
    few = ["--set", "global.clusterer={method: average-linkage, n_clusters: 8}"]
    own = icsr("train", "global", "--method", "icsr", *options, *few)
    assert own.exit_code == 0, own.output
    assert "1 training images have no local label" in own.stderr
    [labels] = (tmp_path / "runs" / "mine" / "cam").glob("*/labels/local.csv")
    lines = labels.read_text().splitlines(keepends=True)
    (tmp_path / "short.csv").write_text("".join(lines[:40]))
    short = icsr("train", "global", "--method", "icsr", *options, *few, "--local", tmp_path / "short.csv")
    assert "short.csv lacks 22 of the 61 training images, such as" in " ".join(short.stderr.split())
    alone = icsr("train", "cam", *options, "--cameras", "1")
    assert_said(alone, "nothing to train on")


def test_a_process_killed_while_another_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that minds them starts when all have: it closed the pipes of one that was being started."""
    died: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    minded: list[bool] = []
    launch = ProcessPoolExecutor._spawn_process  # type: ignore[attr-defined]

    def launch_and_kill(pool: ProcessPoolExecutor) -> None:
        minded.append(pool._executor_manager_thread is not None)  # type: ignore[attr-defined]
        launch(pool)
        next(iter(pool._processes.values())).kill()

    monkeypatch.setattr(ProcessPoolExecutor, "_spawn_process", launch_and_kill)
    with pytest.raises(DatasetError, match=r"A process that sleeps was killed, .*[.] Sleep less[.]"):
        list(in_processes(time.sleep, [0.0] * 8, 4, "sleeps", "Sleep less."))
    assert minded == [False] * 4
    assert not died


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were started wait for work then, and are ended."""
    launch = ProcessPoolExecutor._spawn_process  # type: ignore[attr-defined]

    def launch_two(pool: ProcessPoolExecutor) -> None:
        if len(pool._processes) == 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        launch(pool)

    monkeypatch.setattr(ProcessPoolExecutor, "_spawn_process", launch_two)
    others = set(active_children())
    with pytest.raises(DatasetError, match=r"could not be started \(.*temporarily unavailable\)[.] Sleep"):
        list(in_processes(time.sleep, [0.0] * 8, 4, "sleeps", "Sleep less."))
    for process in set(active_children()) - others:
        process.join(60)
    assert set(active_children()) == others
