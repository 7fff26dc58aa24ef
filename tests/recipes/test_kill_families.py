"""A killed run of a tiny ViT and of a tiny ConvNeXt ends as one that was left alone, to the bit."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from same_run import assert_same_run
from test_kill import Kind, Server, next_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc for threads")

SEED, KILLS = 20261125, 2
SHARED = ["image.height=64", "image.width=32", "global.model.stripes=1", "global.refiners=[]"]
SHARED += ["global.accumulate=2", "global.checkpoint=true", "global.clip=1.0", "global.model.drop_path=0.3"]
FAMILIES = {
    "vit": ["global.model.arch=timm:test_vit", "global.optimizer={method: sgd, lr: 0.01, warmup: 1}"],
    "convnext": [
        "global.model.arch=timm:test_convnext",
        "global.optimizer={method: adamw, schedule: cosine, layer_decay: 0.8, decay_norms: false}",
    ],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_killed_and_resumed(server: Server, tiny_root: Path, tmp_path: Path, family: str) -> None:
    options = [word for each in [*SHARED, *FAMILIES[family]] for word in ("--set", each)]
    options += ["--init", "none"]
    places = ["--data-root", str(tiny_root), "--runs", str(tmp_path)]
    kind = Kind("global", options, places, tmp_path / "tiny/global/whole", 0)
    assert server.ask(arguments=[*kind.start("warm"), "--epochs", "1"], here=True)["code"] == 0
    done = server.ask(arguments=kind.start("whole"))
    assert done["code"] == 0, server.output.read_text()
    draw, left, code, kills = random.Random(f"{SEED} {family}"), done["seconds"], -signal.SIGKILL, 0
    # The first is after the first epoch was saved, so that there is something to go on with.
    file = {"name": "last.safetensors", "occasion": 2, "moment": "renamed", "size": 1}
    assert server.ask(arguments=kind.start("parts"), within=file)["code"] == -signal.SIGKILL
    while code == -signal.SIGKILL and kills < KILLS:
        after = draw.uniform(0, left)
        code = server.ask(arguments=next_command(kind, "parts"), after=after)["code"]
        kills += code == -signal.SIGKILL
    if code == -signal.SIGKILL:
        code = server.ask(arguments=next_command(kind, "parts"))["code"]
    assert code == 0, f"seed {SEED}, {family}: {server.output.read_text()}"
    assert_same_run(kind.folder("parts"), kind.whole)
