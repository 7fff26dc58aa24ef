"""SIGKILL at random moments and in the middle of files: a resumed run ends as one that was left alone.

Real processes and real signals: each attempt is a forked child that runs the command line
(``tests/fork_server.py``). The final labels, weights and checkpoints, and the metrics but for seconds, are
those of the uninterrupted run, bit for bit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import FORKABLE
from same_run import assert_same_run
from tiny_world import TINY

import icsr_cli

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc for threads")

SETTINGS = [word for assignment in TINY for word in ("--set", assignment)]
SEED = 20230425
#: Kills at random moments, per kind of run.
RANDOM_KILLS = 4


class Server:
    """A process that has imported everything, and forks a child per attempt."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output.txt"
        search = [str(Path(icsr_cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[1] / "fork_server.py"), str(self.output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **FORKABLE, "PYTHONPATH": os.pathsep.join(filter(None, search))},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.output.read_text()
        return dict(json.loads(answer))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@dataclass(frozen=True)
class Kind:
    """One kind of run, and its uninterrupted run."""

    stage: str
    options: list[str]
    places: list[str]
    whole: Path
    seconds: float

    def start(self, name: str) -> list[str]:
        named = ["--name", name, "--quiet"]
        return ["train", self.stage, "-d", "tiny", *SETTINGS, *self.options, *self.places, *named]

    def folder(self, name: str) -> Path:
        return self.whole.with_name(name)


def next_command(kind: Kind, name: str) -> list[str]:
    """What a person types after a kill: the same with --resume, where there is something to go on with."""
    if (kind.folder(name) / "settings.yaml").exists():
        return [*kind.start(name), "--resume"]
    return kind.start(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def kinds(server: Server, tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    runs = tmp_path_factory.mktemp("runs")
    places = ["--data-root", str(tiny_root), "--runs", str(runs)]
    options = {
        "shared": ["--network", "shared"],
        "per-camera": ["--network", "per-camera"],
        "global": ["--init", "cam", "--local", str(runs / "tiny/cam/whole-shared")],
    }
    found = {}
    for name, own in options.items():
        stage = "global" if name == "global" else "cam"
        kind = Kind(stage, own, places, runs / "tiny" / stage / f"whole-{name}", 0)
        warm = server.ask(arguments=[*kind.start(f"warm-{name}"), "--epochs", "1"], here=True)
        assert warm["code"] == 0, server.output.read_text()
        done = server.ask(arguments=kind.start(f"whole-{name}"))
        assert done["code"] == 0, server.output.read_text()
        found[name] = Kind(stage, own, places, kind.whole, done["seconds"])
    return found


def half_of(kind: Kind, file: str) -> int:
    """Bytes of half a file; of the metrics, which grow, half of the first line."""
    (reference,) = kind.whole.rglob(file)
    content = reference.read_bytes()
    return len(content.splitlines()[0] if file == "metrics.jsonl" else content) // 2


@pytest.mark.parametrize("name", ["shared", "per-camera", "global"])
def test_killed_at_random_moments(server: Server, kinds: dict[str, Kind], name: str) -> None:
    kind, draw, kills, chain = kinds[name], random.Random(f"{SEED} {name}"), 0, 0
    said, whole = f"seed {SEED}, {name}", kind.seconds
    while kills < RANDOM_KILLS:
        chain += 1
        assert chain < 20, f"{said}: only {kills} kills in 20 runs"
        run, left, code = f"random-{name}-{chain}", whole, -signal.SIGKILL
        while code == -signal.SIGKILL and kills < RANDOM_KILLS:
            after = draw.uniform(0, left)
            answer = server.ask(arguments=next_command(kind, run), after=after)
            code, kills = answer["code"], kills + (answer["code"] == -signal.SIGKILL)
            if code == 0 and left == whole:  # nothing had been done before: the machine is faster by now
                whole = min(whole, answer["seconds"])
            left = max(left - after, whole / 4)
        if code == -signal.SIGKILL:
            code = server.ask(arguments=next_command(kind, run))["code"]
        assert code == 0, f"{said}: {server.output.read_text()}"
        assert_same_run(kind.folder(run), kind.whole)


MOMENTS = {
    "shared": [
        ("run.json", 1, "whole"),
        ("run.json", 1, "renamed"),
        ("settings.yaml", 1, "half"),
        ("settings.yaml", 1, "renamed"),
        ("metrics.jsonl", 1, "half"),
        ("metrics.jsonl", 1, "renamed"),
        ("shared.pt", 1, "half"),
        ("shared.pt", 2, "half"),
        ("shared.pt", 1, "whole"),
        ("last.safetensors", 1, "half"),
        ("last.safetensors", 1, "renamed"),
        ("shared.pt", 1, "half"),
        ("local.csv", 1, "half"),
        ("local.csv", 1, "renamed"),
    ],
    "per-camera": [
        ("camera_0.pt", 1, "whole"),
        ("camera_0.safetensors", 1, "half"),
        ("camera_0.safetensors", 1, "renamed"),
        ("camera_1.pt", 2, "half"),
        ("camera_2.safetensors", 1, "whole"),
        ("camera_2.pt", 1, "half"),
        ("local.csv", 1, "whole"),
    ],
    "global": [
        ("settings.yaml", 1, "renamed"),
        ("epoch_001.csv", 1, "half"),
        ("metrics.jsonl", 1, "whole"),
        ("best.safetensors", 1, "half"),
        ("best.safetensors", 1, "renamed"),
        ("last.safetensors", 1, "whole"),
        ("global.pt", 1, "half"),
        ("global.pt", 2, "half"),
        ("global.pt", 1, "whole"),
        ("epoch_003.csv", 1, "whole"),
        ("global.pt", 1, "half"),
        ("run.json", 2, "half"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", MOMENTS)
def test_killed_in_the_middle_of_a_file(server: Server, kinds: dict[str, Kind], name: str) -> None:
    """Half of a file, the whole file under its temporary name, and between two files of one epoch."""
    kind, run = kinds[name], f"files-{name}"
    folder = kind.folder(run)
    for file, occasion, moment in MOMENTS[name]:
        within = {"name": file, "occasion": occasion, "moment": moment, "size": half_of(kind, file)}
        answer = server.ask(arguments=next_command(kind, run), within=within)
        assert answer["code"] == -signal.SIGKILL, (file, occasion, moment, server.output.read_text())
        left = list(folder.rglob(f".{file}.*.tmp"))
        # What earlier kills left of this file was swept away when it was written again.
        assert len(left) == (moment != "renamed"), (file, occasion, moment, left)
        if moment == "half":
            assert left[0].stat().st_size == within["size"]
    assert server.ask(arguments=next_command(kind, run))["code"] == 0, server.output.read_text()
    assert_same_run(folder, kind.whole)


#: A tiny ViT, with all that a step may be told.
ALL = ["image.height=64", "image.width=32", "global.model.stripes=1", "global.refiners=[]"]
ALL += ["global.accumulate=2", "global.checkpoint=true", "global.clip=1.0", "global.model.drop_path=0.3"]
ALL += ["global.model.arch=timm:test_vit"]
ALL += ["global.optimizer={method: adamw, schedule: cosine, layer_decay: 0.8, decay_norms: false}"]


def test_killed_with_all_that_a_step_may_be_told(server: Server, tiny_root: Path, tmp_path: Path) -> None:
    options = [word for each in ALL for word in ("--set", each)]
    options += ["--init", "none"]
    places = ["--data-root", str(tiny_root), "--runs", str(tmp_path)]
    kind = Kind("global", options, places, tmp_path / "tiny/global/whole", 0)
    assert server.ask(arguments=[*kind.start("warm"), "--epochs", "1"], here=True)["code"] == 0
    done = server.ask(arguments=kind.start("whole"))
    assert done["code"] == 0, server.output.read_text()
    draw, left, code, kills = random.Random(SEED), done["seconds"], -signal.SIGKILL, 0
    # The first is after the first epoch was saved, so that there is something to go on with.
    file = {"name": "last.safetensors", "occasion": 2, "moment": "renamed", "size": 1}
    assert server.ask(arguments=kind.start("parts"), within=file)["code"] == -signal.SIGKILL
    while code == -signal.SIGKILL and kills < 2:
        after = draw.uniform(0, left)
        code = server.ask(arguments=next_command(kind, "parts"), after=after)["code"]
        kills += code == -signal.SIGKILL
    if code == -signal.SIGKILL:
        code = server.ask(arguments=next_command(kind, "parts"))["code"]
    assert code == 0, f"seed {SEED}: {server.output.read_text()}"
    assert_same_run(kind.folder("parts"), kind.whole)
