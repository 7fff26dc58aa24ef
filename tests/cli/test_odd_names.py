"""Names of images that are no UTF-8: shown escaped, kept where a format can hold them, else refused."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from in_process import icsr
from PIL import Image
from tiny_world import TINY

from icsr_cli.types import Dataset

RUN = "runs/odd/global/one"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 24 crops of two cameras."""
    home = tmp_path_factory.mktemp("odd")
    draw = np.random.default_rng(0)
    (home / "crops").mkdir()
    for number in range(24):
        picture = Image.fromarray(draw.integers(0, 256, (32, 16, 3), dtype=np.uint8))
        picture.save(os.fsencode(home / "crops") + b"/c%d_\xff%d.png" % (number % 2, number))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        given = ["--source", "crops", "--pattern", "{camera}_{name}.png", "--size", "32x16"]
        assert icsr("prepare", "folder", "odd", *given).exit_code == 0
        settings = [word for key in TINY if "clusterer" not in key for word in ("--set", key)]
        own = ["-m", "cluster-contrast", "-a", "resnet_small", "--init", "none", "--name", "one"]
        clusters = ["-c", "average-linkage", "--set", "global.clusterer.n_clusters=6"]
        trained = icsr("train", "global", "-d", "odd", *own, *settings, *clusters)
        assert trained.exit_code == 0, trained.output
    return home


def test_clusters_of_one_camera_give_no_thresholds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    shutil.copytree(RUN, "runs/odd/global/alone")
    last = max(Path("runs/odd/global/alone/labels").iterdir())
    one_a_camera = re.sub(rb",(\d),,\d+,-1,\d+,", rb",\1,,\1,-1,\1,", last.read_bytes())
    last.write_bytes(one_a_camera)
    result = icsr("eval", "runs/odd/global/alone")
    assert result.exit_code == 0, result.output
    assert "There are none: no such pairs are in one cluster" in " ".join(result.stdout.split())
    monkeypatch.setattr(Dataset, "n_cameras", 1)
    result = icsr("eval", "runs/odd/global/alone")
    assert "There are none: all images are of one camera." in result.stdout


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (f"report {RUN} --no-map --out page.html", 0, ""),
        (f"report {RUN} --page labels --out page.html", 0, ""),
        (f"report {RUN} --page changes --out page.html", 0, ""),
        (f"labels inspect {RUN} --html page.html", 0, ""),
        (f"eval {RUN} --debias full", 2, "of features that nothing is taken off; leave out --debias."),
        (f"eval {RUN} --rerank --tracks", 2, "leave out --rerank, --tracks."),
        (f"eval {RUN}", 0, ""),
        (f"labels inspect {RUN} --camera c0 --html page.html", 0, ""),
        (f"embed crops --network {RUN} --out f.npz", 0, ""),
        (f"embed crops --network {RUN} --out f.parquet", 2, "is no UTF-8, which .parquet needs"),
        (f"assign crops --to {RUN}", 0, ""),
        (f"labels review {RUN} --out page.html", 2, "is no UTF-8, and a browser cannot write it"),
        ("embed ./nowhere --out f.npz", 1, "Nor is there a folder of that name"),
    ],
)
def test_every_command_takes_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: int, words: str
) -> None:
    monkeypatch.chdir(home)
    result = icsr(*command.split())
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())
    if "page.html" in command and code == 0:
        assert (home / "page.html").read_text("utf-8").startswith("<!doctype html>")
