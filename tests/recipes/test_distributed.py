"""Several processes train as one: real ones, over gloo."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked, icsr, run_ranks
from ranks_worker import main as train
from safetensors.torch import load_file
from tiny_world import TINY
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler
from typer.testing import CliRunner

from icsr_cli.choices import available
from icsr_cli.cli.main import app
from icsr_cli.errors import TrainingError, UsageError
from icsr_cli.recipes.distributed import ALONE, Ranks, device_of, join, launch

SETTINGS = [part for assignment in TINY for part in ("--set", assignment)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What the workers wrote: per kind of run, one result for each rank."""
    out = tmp_path_factory.mktemp("ranks")
    for mode in ("alone", "as-ranks-2"):
        train(mode, out)
    for size, mode in ((2, "sync-bn"), (3, "sync-bn"), (2, "own-bn")):
        run_ranks(size, out / f"{size} {mode}", train, mode, out)
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*.pt")):
        mode, _, size = path.stem.rpartition("-of-")
        found.setdefault(f"{mode.rpartition('-')[0]} x {size}", []).append(torch.load(path))
    return found


def parts(found: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Everything that training changes, under one name each."""
    memories = {f"memory {i}": value for i, value in enumerate(found["centroids"])}
    loss = {"loss": torch.tensor(found["loss"])}
    return {**loss, **memories, "features after it": found["later"], **found["buffers"], **found["moved"]}


@pytest.mark.parametrize(
    ("ranks", "one"),
    [("sync-bn x 2", "alone x 1"), ("sync-bn x 3", "alone x 1"), ("own-bn x 2", "as-ranks-2 x 1")],
)
def test_several_ranks_train_as_one(trained: dict[str, list[dict[str, Any]]], ranks: str, one: str) -> None:
    """Loss, memories, statistics, and the way of every weight, trained in float64.

    Features and memories are float32, rounded to 6e-8; that is what the bound leaves room for.
    """
    [expected] = trained[one]
    for found in trained[ranks]:
        for name in ("features", "by camera"):
            assert torch.equal(found[name], expected[name])
        for name, value in parts(expected).items():
            length = value.double().norm()
            assert length > 0, name
            assert (parts(found)[name].double() - value).norm() < 1e-4 * length, name
    # Among themselves the ranks agree to the bit.
    first, *others = (parts(found) for found in trained[ranks])
    assert all(torch.equal(value, other[name]) for other in others for name, value in first.items())


def test_a_rank_of_its_own_statistics_is_another_training(trained: dict[str, Any]) -> None:
    """The comparison above can fail."""
    difference = trained["own-bn x 2"][0]["later"] - trained["alone x 1"][0]["later"]
    assert difference.abs().max() > 1e-3


@pytest.fixture(scope="module")
def memories(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What one process and two came to with every memory there is."""
    out = tmp_path_factory.mktemp("memories")
    train("memories", out)
    run_ranks(2, out / "ranks", train, "memories", out)
    return [torch.load(out / f"memories-{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2")]


@pytest.mark.parametrize("name", available("memories"))
def test_two_ranks_train_every_memory_as_one(memories: list[dict[str, Any]], name: str) -> None:
    alone, first, second = (found[name] for found in memories)
    for part, value in alone.items():
        length = value.double().norm()
        assert length > 0, part
        assert (first[part].double() - value).norm() < 1e-4 * length, part
        assert torch.equal(first[part], second[part]), part


def test_shares_cover_everything_once() -> None:
    for size in (1, 2, 3, 5):
        for n in (0, 1, 4, 5, 64):
            shares = Ranks(size=size).shares(n)
            assert [row for share in shares for row in range(n)[share]] == list(range(n))
            lengths = [share.stop - share.start for share in shares]
            assert max(lengths) - min(lengths) <= 1


def test_the_largest_jobs_go_first_and_none_is_forgotten() -> None:
    costs = [5.0, 1.0, 9.0, 4.0, 4.0]
    mine = [Ranks(rank, 2).take_largest_first(costs) for rank in range(2)]
    assert mine == [[2, 4], [0, 3, 1]]
    assert [Ranks(rank, 3).take_largest_first([2.0]) for rank in range(3)] == [[0], [], []]
    assert ALONE.take_largest_first(costs) == [2, 0, 3, 4, 1]


def test_every_local_rank_has_a_device_of_its_own() -> None:
    assert [device_of(rank, [], 2) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert [device_of(rank, ["cuda"], 2) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert [device_of(rank, ["cuda:3", "cuda:1"], 4) for rank in range(2)] == ["cuda:3", "cuda:1"]
    assert device_of(1, [], 0) == device_of(1, ["cpu"], 2) == "cpu"
    for local_rank, devices, n_gpus in ((2, [], 2), (0, ["cuda"], 0), (1, ["cuda:0"], 2), (0, ["cuda:7"], 2)):
        with pytest.raises(UsageError, match=f"local rank {local_rank} has no GPU"):
            device_of(local_rank, devices, n_gpus)


class Commands:
    """``icsr train`` on the tiny world, by one process or by several."""

    def __init__(self, tiny_root: Path, runs: Path) -> None:
        self.runs = runs
        self._places = ["-d", "tiny", "--data-root", str(tiny_root), "--runs", str(runs)]

    def line(self, stage: str, name: str, *options: str) -> list[str]:
        return ["train", stage, *self._places, *SETTINGS, "--device", "cpu", "--name", name, *options]

    def alone(self, *words: str) -> str:
        done = CliRunner().invoke(app, self.line(*words))
        assert done.exit_code == 0, done.output
        return done.stdout

    def together(self, *words: str, code: int = 0) -> tuple[str, str]:
        """Give what both ranks printed, and what they said."""
        said = run_ranks(2, self.runs / "said" / words[1], icsr, self.line(*words), code=code)
        return "".join(output for output, _ in said), "".join(errors for _, errors in said)

    def launched(self, *words: str, forked: bool = False) -> Forked:
        """Two ranks as ``--gpus 0,1`` starts them; or forked, which spares them to import torch."""
        return Forked(self.runs / words[1], start_forked if forked else start, 2, self.line(*words))

    def folder(self, stage: str, name: str) -> Path:
        return self.runs / "tiny" / stage / name

    def metrics(self, stage: str, name: str) -> list[dict[str, Any]]:
        lines = (self.folder(stage, name) / "metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "seconds": 0} for line in lines]


def start(processes: int, words: list[str]) -> None:
    sys.exit(launch(processes, words))


class ForkedRank(Forked):
    """As much of ``Popen`` as the launcher asks of a rank."""

    def __init__(self, words: Sequence[str], environment: dict[str, str]) -> None:
        super().__init__(Path(tempfile.mkdtemp()) / "said", in_a_session, list(words), **environment)
        self.pid, self.wait = self.process.pid, self.process.join

    def poll(self) -> int | None:
        code: int | None = self.process.exitcode
        return code


def in_a_session(words: list[str]) -> None:
    os.setsid()  # the launcher sends signals to groups of processes
    icsr(words)


def start_forked(processes: int, words: list[str]) -> None:
    ranks = []

    def popen(_: SubprocessHandler, command: Sequence[str], environment: dict[str, str]) -> ForkedRank:
        ranks.append(ForkedRank(command[command.index("icsr_cli") + 1 :], environment))
        return ranks[-1]

    SubprocessHandler._popen = popen  # type: ignore[method-assign,assignment]
    code = launch(processes, words)
    sys.stderr.write("".join(rank.errors() for rank in ranks))
    sys.exit(code)


@pytest.fixture(scope="module")
def commands(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    commands = Commands(tiny_root, tmp_path_factory.mktemp("runs"))
    commands.alone("cam", "shared")
    return commands


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []


@pytest.mark.parametrize("cameras", ["0-2", "1"])
def test_every_rank_takes_whole_cameras(commands: Commands, cameras: str) -> None:
    """Three cameras on two ranks, and one, so that a rank has none: to the bit as with one process."""
    options = ("--network", "per-camera", "--cameras", cameras)
    assert commands.alone("cam", f"one{cameras}", *options).count("Local labels") == 1
    assert commands.together("cam", f"two{cameras}", *options)[0].count("Local labels") == 1
    one, two = (commands.folder("cam", name + cameras) for name in ("one", "two"))
    assert (one / "labels/local.csv").read_bytes() == (two / "labels/local.csv").read_bytes()
    weights = sorted(path.name for path in one.glob("*.safetensors"))
    assert weights == sorted(path.name for path in two.glob("*.safetensors"))
    for file in weights:
        assert_same_weights(one / file, two / file)
    key = lambda line: (line["part"], line["epoch"])  # noqa: E731
    both = (sorted(commands.metrics("cam", name + cameras), key=key) for name in ("one", "two"))
    assert next(both) == next(both)


def test_the_global_stage_on_two_ranks(commands: Commands) -> None:
    """As with one process, to float tolerance."""
    local = commands.folder("cam", "shared")
    options = ("--sync-bn", "--set", "global.epochs=1", "--lr", "1e-5", "--local", str(local))
    commands.alone("global", "one", *options)
    assert commands.together("global", "two", *options)[0].count("Last epoch") == 1
    [one], [two] = (commands.metrics("global", name) for name in ("one", "two"))
    assert two.pop("loss") == pytest.approx(one.pop("loss"), rel=1e-3)
    assert two == one
    labels = [commands.folder("global", name) / "labels/epoch_001.csv" for name in ("one", "two")]
    assert labels[0].read_bytes() == labels[1].read_bytes()
    environment = json.loads((commands.folder("global", "two") / "environment.json").read_text())
    assert environment["processes"] == 2


def test_a_signal_stops_all_ranks_and_resume_goes_on(commands: Commands) -> None:
    """A signal to the launcher, once an epoch was saved."""
    options = ("--set", "cam.epochs=6", "--set", "cam.iters=6", "--set", "cam.bn_group=16")
    said = "".join(commands.together("cam", "whole", *options))
    assert said.count("groups of about 8 images, not 16 as bn_group says") == 1
    saved = commands.folder("cam", "broken") / "checkpoints" / "shared.pt"
    launcher, deadline = commands.launched("cam", "broken", *options, forked=True), time.monotonic() + 120
    while not saved.exists() and time.monotonic() < deadline:
        assert launcher.process.is_alive()
        time.sleep(0.01)
    launcher.send(signal.SIGTERM)
    errors = launcher.end(143)[1]
    assert "Traceback" not in errors
    assert errors.count("Every finished epoch is saved") == 1
    assert json.loads((saved.parents[1] / "run.json").read_text())["status"] == "interrupted"
    commands.together("cam", "broken", *options, "--resume")
    assert_same_weights(*(commands.folder("cam", name) / "last.safetensors" for name in ("whole", "broken")))
    assert commands.metrics("cam", "whole") == commands.metrics("cam", "broken")


NOT_FINITE = ("--set", "global.optimizer.lr=1e30")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "global.clusterer={eps: 0.01, min_samples: 30}"), "images is noise"),
        (NOT_FINITE, "not finite"),
        (("--local", "/nowhere"), "/nowhere"),
        (("-d", "nowhere"), "data set 'nowhere' is not prepared"),
    ],
)
def test_a_fault_is_said_once(commands: Commands, options: tuple[str, ...], message: str) -> None:
    local = [] if "--local" in options else ["--local", str(commands.folder("cam", "shared"))]
    words = ("global", f"fault{len(options[1])}", *options, *local)
    # The launcher gives the code of the rank that failed; one fault tells whether it does.
    errors = (
        commands.launched(*words).end(1) if options is NOT_FINITE else commands.together(*words, code=1)
    )[1]
    assert errors.count(message) == 1
    assert "Traceback" not in errors


def fail(way: str, kind: type[Exception]) -> None:
    """Fail as all ranks do; the leading one takes a while to say so. Prints when each of them leaves."""
    ranks, _ = join(["cpu"])
    code: Any = 1

    def fault() -> None:
        raise kind("no loss")

    try:
        getattr(ranks, way)(fault)
    except kind:
        time.sleep(1)
    except SystemExit as ended:
        code = ended.code
    print(time.monotonic(), flush=True)
    os._exit(code)


@pytest.mark.parametrize(
    ("way", "kind"),
    [("together", TrainingError), ("from_leader", TrainingError), ("from_leader", OSError)],
)
def test_who_says_nothing_leaves_last(way: str, kind: type[Exception], tmp_path: Path) -> None:
    """A launcher ends all ranks when one has gone, also the one that has not spoken yet."""
    said, quiet = (float(output.split()[-1]) for output, _ in run_ranks(2, tmp_path, fail, way, kind, code=1))
    assert said < quiet
