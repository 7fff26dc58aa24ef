"""``image.store: jpeg`` as a user chooses it: whatever opens pixels takes that store and builds no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from in_process import icsr
from tiny_world import TINY
from typer.testing import Result

SETTINGS = [word for assignment in (*TINY, "image.store=jpeg") for word in ("--set", assignment)]
WORLD = ("--identities", "6+6", "--cameras", "3", "--images", "3-4", "--size", "32x16", "--workers", "1")


def right(*arguments: object) -> Result:
    done = icsr(*arguments, "--quiet")
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    right("prepare", "synthetic", *WORLD, "--store", "jpeg", "--data-root", home / "data")
    own = ("--refine", "none", "--init", "none", "--name", "one")
    right("train", "global", "-d", "synthetic", *SETTINGS, *own, *places(home))
    return home


def places(home: Path) -> tuple[object, ...]:
    return "--data-root", home / "data", "--runs", home / "runs"


def kept(home: Path) -> set[str]:
    return {path.name for path in (home / "data/synthetic/pixels").iterdir() if path.suffix != ".lock"}


def test_everything_takes_the_store_of_the_settings(home: Path) -> None:
    parts = [f"{part}-32x16.jpegs" for part in ("train", "query", "gallery")]
    files = {f"{part}{suffix}" for part in parts for suffix in ("", ".json", ".offsets.npy")}
    assert kept(home) == files
    run = home / "runs/synthetic/global/one"
    measured = json.loads(right("eval", run, "--json", *places(home)).stdout)["plain"]
    reported = json.loads(right("report", run, "--rankings", 1, "--json", *places(home)).stdout)
    assert reported["retrieval"]["mAP"] == pytest.approx(measured["mAP"])
    inspected = icsr("labels", "inspect", run, "--html", home / "labels.html", *places(home))
    assert inspected.exit_code == 0, inspected.output
    assert kept(home) == files
    (listed,) = json.loads(icsr("prepare", "--list", "--data-root", home / "data", "--json").stdout)[:1]
    assert listed["pixel_bytes"] == sum(
        (home / "data/synthetic/pixels" / name).stat().st_size for name in files if ".json" not in name
    )


def test_a_run_goes_on_with_its_store_or_not_at_all(home: Path) -> None:
    again = ("train", "global", "-d", "synthetic", "--resume", home / "runs/synthetic/global/one")
    refused = icsr(*again, "--set", "image.store=raw", *places(home))
    assert refused.exit_code == 2
    assert "image.store: 'jpeg' in the run, 'raw' asked for" in refused.stderr
    right(*again, *places(home))


def test_verify_takes_a_damaged_store_away(home: Path) -> None:
    def verify() -> Result:
        return icsr("prepare", "synthetic", "--verify", "--workers", "1", "--data-root", home / "data")

    assert verify().exit_code == 0
    path = home / "data/synthetic/pixels/query-32x16.jpegs"
    whole = path.read_bytes()
    path.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    failed = verify()
    assert failed.exit_code == 1
    [row] = [line for line in failed.stdout.splitlines() if "query-32x16.jpegs" in line]
    assert row.rstrip().endswith("1 blocks of 256 images are damaged, first 0")
    assert not any(name.startswith("query") for name in kept(home))
    right("eval", home / "runs/synthetic/global/one", *places(home))
    assert path.read_bytes() == whole
    refused = icsr("prepare", "synthetic", "--verify", "--store", "jpeg", "--data-root", home / "data")
    assert "leave out --store" in refused.stderr
