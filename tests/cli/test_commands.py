"""The commands as a user runs them: output, files, exit codes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from enum import Enum, IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import numpy as np
import pytest
import torch
import yaml
from forked import Forked
from in_process import icsr
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from tiny_world import TINY
from typer.testing import CliRunner

from icsr_cli import choices
from icsr_cli.cli import labels_inspect
from icsr_cli.cli.console import QuietProgress, make_progress
from icsr_cli.cli.main import app
from icsr_cli.cli.options import from_environment, refuse_typed
from icsr_cli.errors import Interrupted, UsageError
from icsr_cli.recipes import training
from icsr_cli.recipes.gallery import open_embedder
from icsr_cli.runs import RunFolder, create, read_labels, write_labels
from icsr_cli.runs.evaluation import weights_digest

SETTINGS = ["--method", "icsr", *(word for assignment in TINY for word in ("--set", assignment))]


@pytest.fixture(scope="module")
def places(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    runs = tmp_path_factory.mktemp("runs")
    return ["--data-root", str(tiny_root), "--runs", str(runs)]


@pytest.fixture(scope="module")
def trained(places: list[str]) -> dict[str, dict[str, object]]:
    cam = icsr("train", "cam", "-d", "tiny", *SETTINGS, "--json", *places)
    assert cam.exit_code == 0, cam.output
    own = icsr("train", "global", "-d", "tiny", *SETTINGS, "--json", *places)
    assert own.exit_code == 0, own.output
    return {"cam": json.loads(cam.stdout), "global": json.loads(own.stdout)}


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from icsr_cli.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = ('torch', 'faiss', 'numpy', 'scipy', 'numba', 'sklearn', 'pydantic')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_of_methods_need_no_torch() -> None:
    """As the shell asks for them at the tabulator, and ``icsr methods`` prints them."""
    code = (
        "import sys; from icsr_cli.cli import complete\n"
        "assert 'camera-aware' in complete.methods() and 'dbscan' in complete.clusterers()\n"
        "assert 'discard' in complete.refiners() and 'hard' in complete.worlds()\n"
        "from icsr_cli.cli.main import app; app(['methods', '--json'], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, _, torch_is_loaded = done.stdout.strip().rpartition("\n")
    assert torch_is_loaded == "False"
    found = json.loads(shown)
    assert list(found) == ["methods", *choices.ROOMS]
    for room in choices.ROOMS:
        assert list(found[room]) == list(choices.available(room))
        assert all(found[room].values())
    names = [name for group in found.values() for name in group]
    assert sorted(set(names)) == sorted(names)  # `icsr methods NAME` is one
    assert found["memories"]["camera-proxies"].endswith("arXiv 2012.10674, 2103.16364, 2201.05820.")


def test_a_part_shows_its_options() -> None:
    shown = icsr("methods", "camera-proxies").stdout
    told = json.loads(icsr("methods", "camera-proxies", "--json").stdout)["memories"]
    assert "Camera-aware proxies (Wang et al., AAAI 2021, arXiv 2012.10674)" in " ".join(shown.split())
    assert "reads: cameras" in shown
    assert yaml.safe_load(shown[shown.index("\nweight: ") :]) == told["options"]
    assert told["options"] == choices.find("memories", "camera-proxies").Options().model_dump()
    # What it shares with another part, and one that is not whole by itself.
    assert "information nodes" in icsr("methods", "split").stdout
    assert "n_clusters: null" in icsr("methods", "average-linkage").stdout
    assert "Did you mean 'dbscan'?" in icsr("methods", "dbscn").stderr
    assert "go with a method" in icsr("methods", "dbscan", "-d", "veri").stderr


@pytest.mark.parametrize(
    "command",
    ["", "prepare", "prepare market1501", "train", "train cam", "train global", "labels", "labels inspect",
     "embed", "methods", "models",
     "labels generate", "eval", "demo", "search", "export", "doctor", "report"],
)  # fmt: skip
def test_every_command_has_help(command: str) -> None:
    result = icsr(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("train -d ti", ["tiny"]),
        ("train --method ca", ["camera-aware"]),
        ("train -a resnet_s", ["resnet_small"]),
        ("labels inspect RUNS/tiny/gl", ["RUNS/tiny/global/a"]),
        ("compare RUNS/tiny/cam", ["RUNS/tiny/cam/a"]),
        ("embed t", ["tiny"]),
        ("train -c db", ["dbscan"]),
        ("labels generate --refine sp", ["split"]),
        ("train --init RUNS/tiny/c", ["RUNS/tiny/cam/a"]),
        ("train --init im", ["imagenet"]),
        ("prepare synthetic --preset me", ["metro"]),
    ],
)
def test_the_shell_completes(
    line: str, offered: list[str], tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    for stage in ("cam", "global"):
        create(runs, "tiny", stage, name="a")
    monkeypatch.setenv("ICSR_DATA", str(tiny_root))
    monkeypatch.setenv("ICSR_RUNS", str(runs))
    words = f"icsr {line}".replace("RUNS", str(runs))
    asked = {
        "_ICSR_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    found = CliRunner().invoke(app, [], prog_name="icsr", env=asked)
    assert found.stdout.split() == [word.replace("RUNS", str(runs)) for word in offered]


def test_version() -> None:
    assert icsr("--version").stdout.startswith("icsr 0.")


def test_both_stages_write_their_runs(trained: dict[str, dict[str, object]]) -> None:
    cam, own = (Path(str(trained[stage]["run"])) for stage in ("cam", "global"))
    assert {"nmi", "pairwise_f"} < set(trained["cam"]["cameras"][0])  # type: ignore[index]
    assert 0 < trained["global"]["nmi"] <= 1  # type: ignore[operator]
    for run in (cam, own):
        for name in (
            "run.json",
            "settings.yaml",
            "environment.json",
            "metrics.jsonl",
            "log.txt",
            "last.safetensors",
        ):
            assert (run / name).is_file(), name
        assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert (cam / "labels" / "local.csv").is_file()
    assert sorted(path.name for path in (own / "labels").iterdir()) == [f"epoch_00{i}.csv" for i in (1, 2, 3)]
    assert json.loads((own / "run.json").read_text())["local"] == str(cam / "labels" / "local.csv")
    assert not list(cam.rglob("*.tmp"))


def test_eval_takes_the_newest_run_a_run_or_a_file(
    trained: dict[str, dict[str, object]], places: list[str]
) -> None:
    run = Path(str(trained["global"]["run"]))
    answers = [
        icsr("eval", *which, "-d", "tiny", "--json", *places)
        for which in ([], ["--resume"], [run], ["--resume", run], [run / "last.safetensors"])
    ]
    assert [answer.exit_code for answer in answers] == [0] * 5
    figures = [json.loads(answer.stdout)["plain"] for answer in answers]
    assert figures[0] == figures[1] == figures[2] == figures[3]
    assert figures[0] == figures[4]  # the last epoch is the best one by default
    table = icsr("eval", run, "--rerank", "--camera-rerank", *places)
    assert "Rank-1" in table.stdout
    assert "camera-aware re-ranking" in table.stdout
    assert "0.1 % false" in table.stdout
    assert "Data set: tiny," in table.stderr  # the run's own, without -d
    debiased = icsr("eval", run, "--debias", "full", *places)
    assert "debiased (full)" in debiased.stdout
    kept = json.loads((run / "evaluation.json").read_text())["evaluations"]
    assert {(one["weights"], one["rerank"], one["debias"]) for one in kept} == {
        ("last.safetensors", None, None),
        ("best.safetensors", None, None),
        ("best.safetensors", "k-reciprocal", None),
        ("best.safetensors", "camera", None),
        ("best.safetensors", None, "full"),
    }
    assert len(kept) == 5
    assert {one["weights_sha256"] for one in kept} == {weights_digest(run / "best.safetensors")}
    assert kept[0]["mAP"] == figures[0]["mAP"]


def test_features_go_to_the_label_engine(
    trained: dict[str, dict[str, object]], places: list[str], tiny_root: Path, tmp_path: Path
) -> None:
    run, out = trained["global"]["run"], tmp_path / "features.npz"
    result = icsr("embed", "tiny", "--network", run, "--out", out, "--json", *places)
    assert result.exit_code == 0, result.output
    found = np.load(out)
    assert (
        found["features"].shape[0] == len(found["paths"]) == len(found["cameras"]) == len(found["ids"]) == 48
    )
    np.testing.assert_allclose(np.linalg.norm(found["features"], axis=1), 1, atol=1e-5)
    about = json.loads(str(found["about"]))
    assert (about["arch"], about["camera_names"]) == ("resnet_small", ["c1", "c2", "c3"])
    labels = tmp_path / "labels.csv"
    assert icsr("labels", "generate", out, "-m", "camera-aware", "--out", labels, "--json").exit_code == 0
    shown = icsr("labels", "inspect", labels)
    assert shown.exit_code == 0, shown.output
    folder = next((tiny_root / "tiny").glob("rendered-*/query"))
    fields = ["--pattern", "{id}_c{camera}s*.*", "--debias", "full"]
    again = icsr("embed", folder, "--network", run, "--out", out, *fields, *places)
    assert again.exit_code == 0, again.output
    assert set(np.load(out)) == {"features", "about", "paths", "cameras", "ids"}
    assert icsr("embed", folder, "--network", run, "--out", out, "--debias", "full", *places).exit_code == 2
    table = tmp_path / "features.parquet"
    written = icsr("embed", folder, "--network", run, "--out", table, *fields, *places)
    assert written.exit_code == 0, written.output
    assert written.stdout.startswith(f"Written to {table}: ")
    rows = parquet.read_table(table)
    assert rows.column("paths").to_pylist() == np.load(out)["paths"].tolist()
    np.testing.assert_array_equal(
        np.array(rows.column("features").to_pylist(), np.float32), np.load(out)["features"]
    )
    assert json.loads(rows.schema.metadata[b"icsr"])["debias"] == "full"


def test_eval_of_a_run_stays_with_the_run(
    trained: dict[str, dict[str, object]],
    places: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its data set, size and stripes, though another data set was prepared since."""
    run = Path(str(trained["global"]["run"]))
    before = json.loads(icsr("eval", run, "--json", *places).stdout)
    root = tmp_path / "data"
    shutil.copytree(places[1], root)
    render = ["--identities", 4, "--cameras", 2, "--size", "32x16", "--name", "other", "--data-root", root]
    assert icsr("prepare", "synthetic", *render).exit_code == 0
    elsewhere = ["--data-root", root, *places[2:]]
    assert json.loads(icsr("eval", run, "--json", *elsewhere).stdout)["plain"] == before["plain"]
    named = icsr("eval", run, "-a", "resnet_small", "--json", *elsewhere)
    assert json.loads(named.stdout)["plain"] == before["plain"]
    assert icsr("eval", run, "-a", "resnet50", *elsewhere).exit_code == 1
    (tmp_path / "next.yaml").write_text("image: {height: 64, width: 48}")
    monkeypatch.setenv("ICSR_CONFIG", str(tmp_path / "next.yaml"))  # of what is to be trained next
    assert json.loads(icsr("eval", run, "--json", *elsewhere).stdout)["plain"] == before["plain"]
    monkeypatch.delenv("ICSR_CONFIG")
    other = icsr("eval", run, "-d", "other", *elsewhere)
    assert other.exit_code == 0, other.output
    assert "trained on another data set, tiny" in other.stderr


@pytest.mark.parametrize("other", [("--height", 48), ("--precision", "bf16"), ("--set", "evaluation.k1=5")])
def test_eval_keeps_what_the_settings_of_the_run_give(
    trained: dict[str, dict[str, object]], places: list[str], other: tuple[object, ...], tmp_path: Path
) -> None:
    """The figures stand beside those of other runs, and the thresholds go into exported files."""
    run = tmp_path / "run"
    shutil.copytree(str(trained["global"]["run"]), run)
    assert icsr("eval", run, "--rerank", "--set", "evaluation.batch_size=5", *places).exit_code == 0
    before = (run / "evaluation.json").read_bytes()
    result = icsr("eval", run, "--rerank", *other, *places)
    assert result.exit_code == 0, result.output
    assert "does not keep these figures" in " ".join(result.stderr.split())
    assert (run / "evaluation.json").read_bytes() == before


def test_settings_of_a_stage_that_is_not_trained_are_told_of(places: list[str], tmp_path: Path) -> None:
    small = ["--set", "cam.epochs=1", "--set", "cam.iters=1", "--init", "none", "--height", 32, "--width", 16]
    done = icsr(
        "train", "cam", "-d", "tiny", *small, "--set", "global.epochs=7", *places[:2], "--runs", tmp_path
    )
    assert done.exit_code == 0, done.output
    said = " ".join(done.stderr.split())
    assert "--set global.epochs=7 changes nothing: that stage is not trained here" in said
    assert "cam.epochs=1 changes" not in said


def test_a_run_is_looked_at_in_its_own_precision(
    trained: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    run = RunFolder(Path(shutil.copytree(str(trained["global"]["run"]), tmp_path / "run")))
    run.write_settings({**run.settings(), "precision": "bf16"})
    weights = run.path / "last.safetensors"
    for precision, expected in ((None, "bf16"), ("fp32", "fp32")):
        embedder = open_embedder(weights, tmp_path, "cpu", precision, QuietProgress())
        assert embedder.engine.precision == expected


def test_eval_shows_what_it_cannot_keep(
    trained: dict[str, dict[str, object]], places: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(str(trained["global"]["run"]), run)
    (run / "evaluation.json").unlink(missing_ok=True)
    (run / "evaluation.json").mkdir()  # as a run of somebody else: nothing can be written
    result = icsr("eval", run, "--json", *places)
    assert result.exit_code == 0, result.output
    assert 0 < json.loads(result.stdout)["plain"]["mAP"] <= 1
    assert "evaluation.json cannot be written (Is a directory)" in " ".join(result.stderr.split())
    assert not list(run.glob(".*.tmp"))


def test_eval_opens_published_checkpoints(
    trained: dict[str, dict[str, object]], places: list[str], tmp_path: Path
) -> None:
    weights = load_file(Path(str(trained["global"]["run"])) / "last.safetensors")
    published = {f"module.{name}": value for name, value in weights.items()}
    file = tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": published, "epoch": 3, "best_mAP": 0.5}, file)
    size = ("--height", 32, "--width", 16)
    ours = icsr("eval", "-d", "tiny", "--json", *places)
    theirs = icsr("eval", "-d", "tiny", "--resume", file, *size, "--json", *places)
    assert theirs.exit_code == 0, theirs.output
    assert json.loads(ours.stdout)["plain"] == json.loads(theirs.stdout)["plain"]


def test_labels_inspect(trained: dict[str, dict[str, object]], places: list[str]) -> None:
    whole = icsr("labels", "inspect", "--json", "--runs", places[3])
    assert whole.exit_code == 0, whole.output
    found = json.loads(whole.stdout)
    assert [line["epoch"] for line in found["epochs"]] == [1, 2, 3]
    cluster = found["largest_clusters"][0]["cluster"]
    one = icsr("labels", "inspect", "--cluster", cluster, "--json", "--runs", places[3])
    assert len(json.loads(one.stdout)["images"]) == found["largest_clusters"][0]["images"]
    for options in (
        [],
        ["--epoch", 1],
        ["--camera", 0],
        ["--discarded"],
        ["--compare", 1],
        ["--cluster", cluster],
    ):
        result = icsr("labels", "inspect", *options, "--runs", places[3])
        assert result.exit_code == 0, result.output
        assert "epoch_00" in result.stdout
    assert all(image["cohesion"] is not None for image in json.loads(one.stdout)["images"])
    shown = icsr("labels", "inspect", "--runs", places[3]).stdout
    assert "cohesion" in shown
    assert "(finished)" in shown
    states = ", ".join(f"{count} {state}" for state, count in found["states"].items())
    assert f"Images by what became of them: {states}." in " ".join(shown.split())
    assert sum(found["states"].values()) == sum(row["images"] for row in found["cameras"])
    cam = icsr("labels", "inspect", str(trained["cam"]["run"])).stdout
    assert re.search(r"Epochs\s+network +epoch +loss +clusters", cam)
    assert re.search(r"Cameras in their last epoch\s+camera +clusters +silhouette +best epoch", cam)
    names = json.loads((Path(str(trained["cam"]["run"])) / "run.json").read_text())["camera_names"]
    assert [row["camera"] for row in found["cameras"]] == names
    named = json.loads(icsr("labels", "inspect", "--camera", names[1], "--json", "--runs", places[3]).stdout)
    assert {image["camera"] for image in named["images"]} == {names[1]}
    local = icsr("labels", "inspect", trained["cam"]["run"])
    assert local.exit_code == 0
    assert "local.csv" in local.stdout
    assert "cohesion" not in local.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("labels inspect --epoch 9", 1, "has no labels of epoch 9"),
        ("labels inspect --cluster 999", 1, "999"),
        ("labels inspect --camera hall", 2, "There is no camera 'hall'"),
        ("labels inspect --cluster 1 --camera 2", 2, "Give one of"),
        ("labels inspect --images 3", 2, "leave out --images"),
        ("labels inspect --cluster 1 --html x.html --images 3", 2, "leave out --images"),
        ("labels inspect --cluster 1 --count 3", 2, "leave out --count"),
        ("labels inspect --compare 1 --count 3", 2, "leave out --count"),
        ("labels inspect PLAIN -d tiny", 2, "leave out --dataset"),
        ("report RUN --page labels --rankings 2 --no-map", 2, "leave out --rankings, --map"),
        ("report RUN --page changes --device cpu --seed 1", 2, "leave out --seed, --device"),
        ("report RUN --page compare -d tiny", 2, "leave out --dataset"),
        ("eval -d tiny /nowhere/model.pth.tar", 1, "/nowhere/model.pth.tar"),
        ("eval -d unknown", 1, "unknown"),
        ("train cam -d tiny --set cam.epochz=1", 2, "cam.epochs"),
        ("train cam -d tiny -a resnet51", 2, "resnet50"),
        ("train cam -d tiny --cameras 7", 2, "no camera 7"),
        ("train cam -d tiny --cameras x", 2, "--cameras takes"),
        ("train cam -d tiny --cameras ²", 2, "--cameras takes"),
        ("train cam -d tiny --seeds 3,3", 2, "names a number twice"),
        ("train cam -d tiny --seeds 1,2 --set seed=5", 2, "--set seed=5 and --seeds say the same"),
        ("train cam -d tiny --seed 3 --set seed=5", 2, "--set seed=5 and --seed say the same"),
        ("train cam -d tiny --seeds 1,2 --resume", 2, "--resume --name GROUP"),
        ("train cam some_run -d tiny --seeds 1 --name a --resume", 2, "--resume --name GROUP"),
        ("train cam some_run -d tiny --name a --resume", 2, "give one of them"),
        ("doctor --config nowhere.yaml", 2, "add --plan"),
        ("train cam -d tiny --gpus 70,71", 2, "no cuda:70 and no cuda:71"),
        ("train cam -d tiny --gpus 0,0", 2, "names a number twice"),
        ("train cam -d tiny --cameras 0-1,1", 2, "names a number twice"),
        ("train cam -d tiny --gpus 0 --device cpu", 2, "give one of them"),
        ("train cam -d tiny --device cuda:7", 2, "cuda:7"),
        ("train cam -d tiny --device=", 2, "Error: --device= is empty: a variable of the shell"),
        ("eval RUN --height 99999999999", 2, "2048"),
        ("eval --debias half", 2, "Invalid value for '--debias': 'half' is not one of"),
        ("train global -d tiny --set global.optimizer.milestones=[3,3]", 2, "name an epoch twice"),
        ("train global -d tiny --set global.optimizer.milestones=[0]", 2, "optimizer.milestones.0"),
        ("train cam -d tinny", 1, "Did you mean 'tiny'"),
        ("train cam -d tiny -a small", 2, "Did you mean 'resnet_small'"),
        ("train cam -d tiny run_without_resume", 2, "add --resume"),
        ("train cam -d tiny --init /nowhere.pth", 1, "/nowhere.pth"),
        ("train global -d tiny --clusterer dbscam", 2, "dbscan"),
        ("train global -d tiny --clusterer dbscan --set global.clusterer.epz=1", 2, "did you mean eps"),
        ("train global -d tiny --set global.distance.k2=9", 2, "k2 must be at most k1"),
        ("train global -d tiny --network shared", 2, "stage than icsr train global: icsr train cam"),
        ("train cam -d tiny --init cam", 2, "--init cam belongs to the other stage"),
        ("train global -d tiny -m icsr --local none --init none", 1, "To train without local labels, leave"),
        ("embed . --pattern {name}.jpg --out x.npz", 2, "{camera}: where a path says which camera took"),
        ("train global -d tiny -m icsr --local RUN --init none", 1, "--local takes a cam run"),
        ("train global -d tiny -m icsr --local PLAIN --init none", 1, "no training image a local label"),
        ("train --quiet -d tiny --method icsr --local x.csv", 2, "--local x.csv is for the global stage"),
        ("train --quiet -d tiny --method camera-aware --cameras 0", 2, "--cameras belongs to the other"),
        ("eval --quiet --set global.epochs=3", 2, "--set global.epochs=3 changes nothing here"),
        ("train global -d tiny --refine=", 2, "--refine= is empty"),
        ("train global -d tiny --method camera", 2, "Did you mean 'camera-aware'"),
        ("train global -d tiny --local /nowhere", 1, "/nowhere"),
        ("train global -d tiny --select median", 2, "select"),
        ("train nonsense", 2, "nonsense"),
    ],
)  # fmt: skip
def test_wrong_use_gets_one_message(
    trained: dict[str, dict[str, object]],
    places: list[str],
    arguments: str,
    code: int,
    words: str,
    tmp_path: Path,
) -> None:
    labels = read_labels(Path(str(trained["cam"]["local"])))
    plain = tmp_path / "plain.csv"
    write_labels(plain, replace(labels, local_clusters=np.full_like(labels.local_clusters, -1)))
    named = arguments.replace("RUN", str(trained["global"]["run"])).replace("PLAIN", str(plain))
    words_of = named.split()
    own = places[2:] if words_of[0] == "labels" else places
    settings = SETTINGS if words_of[0] == "train" and len(words_of) > 2 else []
    result = icsr(words_of[0], words_of[1], *settings, *words_of[2:], *own)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("stage", "words", "code", "said"),
    [
        ("cam", ["--init", "cut.safetensors"], 1, "not a whole safetensors file"),
        ("cam", ["--init", "cut.pth"], 1, "not a whole PyTorch checkpoint"),
        ("cam", ["--init", "other.safetensors"], 1, "these weights do not fit resnet_small"),
        (
            "cam",
            ["--init", "imagenet", "-a", "resnet18", "--set", "cam.model.stripes=1"],
            1,
            "nothing is downloaded without being asked",
        ),
        (
            "cam",
            ["--set", "cam.model.freeze=[stem]", "--set", "cam.model.stripes=9"],
            2,
            "cam.model.freeze: resnet_small has no part 'stem'. It has 0, 1, 4, 5, 6, 7. [] freezes none. - "
            "cam.model.stripes: resnet_small gives maps of 4 rows of images of 32 x 16, too few "
            "for 9 stripes. Take 4 at most",
        ),
        (
            "cam",
            ["-a", "osnet_x0_25", "--set", "cam.model.stripes=2", "--set", "cam.augmentation.pad=16"],
            2,
            "cam.model.stripes: 2 do not go with the layers after the pooling of osnet_x0_25. Leave "
            "stripes at 1. - cam.augmentation.pad: images of 32 x 16",
        ),
        (
            "cam",
            ["-a", "timm:test_vit", "--set", "cam.model.stripes=1", "--set", "image.height=40"],
            2,
            "cam.model.arch: timm:test_vit takes images in patches of 16 pixels",
        ),
        ("cam", ["--cameras", "7"], 2, "no camera 7"),
        ("cam", ["--pairs", "pairs.csv"], 2, "pairs.csv"),
        ("global", ["--init", "cut.safetensors", "--refine", "none"], 1, "not a whole safetensors file"),
        ("global", ["--local", "cut.csv"], 1, "is not whole"),
        ("global", ["--local", "other.csv"], 1, "None of the 48 training images has a label"),
    ],
)
def test_what_cannot_begin_leaves_no_run_behind(
    places: list[str],
    trained: dict[str, dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    words: list[str],
    code: int,
    said: str,
) -> None:
    """Whatever it is given is looked at before there is a folder that the next start would take for a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    whole = (Path(str(trained["cam"]["run"])) / "last.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("cut.pth").write_bytes(whole[:1000])
    save_file({"base.0.weight": torch.ones(2)}, "other.safetensors")
    table = Path(str(trained["cam"]["local"])).read_text()
    Path("cut.csv").write_text(table[:-5])
    Path("other.csv").write_text(table.replace("train/", "elsewhere/"))
    Path("pairs.csv").write_text("first,second,answer\nnobody.jpg,nowhere.jpg,same\n")
    own = ["train", stage, "-d", "tiny", *SETTINGS, *places[:2], "--runs", tmp_path / "runs", "--name", "one"]
    result = icsr(*own, *words)
    assert result.exit_code == code, result.output
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "runs").exists()


def test_nothing_prepared_names_the_command(tmp_path: Path) -> None:
    result = icsr("train", "cam", "--data-root", tmp_path)
    assert result.exit_code == 1
    assert "icsr prepare" in result.stderr


def test_no_cam_run_names_the_command(tiny_root: Path, tmp_path: Path) -> None:
    where = ["--data-root", tiny_root, "--runs", tmp_path]
    result = icsr("train", "global", "-d", "tiny", "--method", "icsr", *where)
    assert result.exit_code == 1
    assert "icsr train cam -d tiny" in result.stderr
    assert not list(tmp_path.rglob("run.json"))


def test_the_data_set_prepared_last_is_said(places: list[str], tmp_path: Path) -> None:
    result = icsr("train", "cam", *SETTINGS, "--set", "cam.epochs=1", *places[:2], "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0].startswith("Data set: tiny (prepared last)")
    # Nobody named it, so --quiet says it too; a program that reads JSON sees the run.
    wrong = ["train", "cam", "--quiet", "--set", "cam.epochz=1", *places[:2]]
    assert icsr(*wrong).stderr.startswith("Data set: tiny (prepared last)")
    assert icsr(*wrong, "--json").stderr.startswith("Error: ")
    assert icsr(*wrong, "-d", "tiny").stderr.startswith("Error: ")
    assert icsr("doctor", "--plan", *places[:2]).stdout.startswith("tiny (prepared last): ")


def test_a_run_is_not_resumed_with_other_settings(
    trained: dict[str, dict[str, object]], places: list[str]
) -> None:
    run = trained["cam"]["run"]
    result = icsr("train", "cam", run, "--resume", "--epochs", 7, "--lr", 0.5, *places)
    assert result.exit_code == 2
    assert "cam.epochs: 3 in the run, 7 asked for" in result.stderr
    assert "cam.optimizer.lr" in result.stderr
    again = icsr("train", "cam", run, "--resume", *places)
    assert again.exit_code == 0, again.output
    wrong = icsr("train", "global", run, "--resume", *places)
    assert wrong.exit_code == 2
    assert "cam run" in wrong.stderr


@pytest.mark.parametrize("stage", ["cam", "global"])
def test_a_finished_run_gets_back_the_figures_that_were_cut_off(
    trained: dict[str, dict[str, object]], places: list[str], tmp_path: Path, stage: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(str(trained[stage]["run"]), run)
    metrics = run / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole[:-20])
    info = RunFolder(run).info()
    result = icsr("train", stage, run, "--resume", "--json", *places)
    assert metrics.read_bytes() == whole
    assert RunFolder(run).info() == info  # it ended when it did
    own = "cameras" if stage == "cam" else "loss"
    assert json.loads(result.stdout)[own] == trained[stage][own]
    assert "finished already" in (run / "log.txt").read_text()


def test_a_finished_run_without_its_figures_is_named(
    trained: dict[str, dict[str, object]], places: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(str(trained["global"]["run"]), run)
    (run / "metrics.jsonl").write_text("")
    checkpoint = run / "checkpoints" / "global.pt"
    state = torch.load(checkpoint, weights_only=True)
    del state["figures"]  # as version 0.1 wrote it
    torch.save(state, checkpoint)
    result = icsr("train", "global", run, "--resume", *places)
    assert (result.exit_code, "metrics.jsonl holds no epoch" in " ".join(result.stderr.split())) == (1, True)


def test_the_same_command_with_resume_goes_on(
    trained: dict[str, dict[str, object]], places: list[str], tmp_path: Path
) -> None:
    """As the message of an interrupted run says: --name, --cameras, --local and --init cam stand in it."""
    runs = ["--runs", tmp_path, *places[:2], "-d", "tiny"]
    cam = ["train", "cam", *SETTINGS, "--cameras", "0-1", "--name", "mine", *runs]
    labels = tmp_path / "tiny" / "cam" / "mine" / "labels" / "local.csv"
    assert icsr(*cam).exit_code == 0
    text = labels.read_text()
    for command in (cam, ["train", "cam", *runs]):
        again = icsr(*command, "--resume")
        assert again.exit_code == 0, again.output
        assert labels.read_text() == text
    other = icsr("train", "cam", *runs, "--resume", "--cameras", "2")
    assert other.exit_code == 2
    assert "[0, 1]" in other.stderr
    own = ["train", "global", *SETTINGS, "--init", "cam", "--local", labels, "--name", "own", *runs]
    assert icsr(*own).exit_code == 0
    again = icsr(*own, "--resume")
    assert again.exit_code == 0, again.output
    other = icsr("train", "global", *runs, "--resume", "--local", trained["cam"]["run"])
    assert other.exit_code == 2
    assert "local labels" in other.stderr


def test_a_run_goes_on_from_another_folder_by_the_labels_it_began_with(
    trained: dict[str, dict[str, object]], places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own copy counts, whatever becomes of the file it was given."""
    labels, elsewhere = tmp_path / "labels.csv", tmp_path / "elsewhere"
    labels.write_bytes(Path(str(trained["cam"]["local"])).read_bytes())
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    own = ["train", "global", "-d", "tiny", *places[:2]]
    begun = icsr(
        *own, *SETTINGS, "--init", "none", "--local", "labels.csv", "--name", "own", "--runs", "runs"
    )
    assert begun.exit_code == 0, begun.output
    run = tmp_path / "runs" / "tiny" / "global" / "own"
    labels.write_text(labels.read_text().replace(",0,", ",1,"))
    monkeypatch.chdir(elsewhere)
    assert icsr(*own, run, "--resume").exit_code == 0
    other = icsr(*own, run, "--resume", "--local", labels)
    assert (other.exit_code, "as they were then" in " ".join(other.stderr.split())) == (2, True)
    (run / "local.csv").write_bytes(labels.read_bytes())
    damaged = icsr(*own, run, "--resume")
    assert (damaged.exit_code, "has changed since" in " ".join(damaged.stderr.split())) == (1, True)


def test_no_name_is_not_the_data_set_that_was_prepared_last(places: list[str]) -> None:
    found = icsr("train", "cam", "-d", "", *places)
    assert (found.exit_code, "Error: -d is empty" in found.stderr) == (2, True), found.output


def test_several_seeds_are_refused_before_the_first_is_trained(places: list[str], tmp_path: Path) -> None:
    runs = ["--runs", tmp_path, *places[:2], "-d", "tiny", "--name", "group"]
    (tmp_path / "tiny" / "cam" / "group-seed2").mkdir(parents=True)
    (tmp_path / "tiny" / "cam" / "group-seed2" / "settings.yaml").touch()
    found = icsr("train", "cam", *SETTINGS, "--seeds", "1,2", *runs)
    assert (found.exit_code, "already" in found.stderr) == (1, True)
    assert not (tmp_path / "tiny" / "cam" / "group-seed1").exists()


def test_weights_of_images_of_another_size_are_warned_of(
    trained: dict[str, dict[str, object]], places: list[str], tmp_path: Path
) -> None:
    weights, where = (
        Path(str(trained["global"]["run"])) / "last.safetensors",
        ["--runs", tmp_path, *places[:2]],
    )
    own = ["train", "global", "-d", "tiny", *SETTINGS, "--set", "global.epochs=1", "--refine", "none"]
    for size in ([], ["--set", "image.height=48"]):
        found = icsr(*own, "--init", weights, *size, *where)
        assert found.exit_code == 0, found.output
        said = "32 x 16, and these are 48 x 16. --height 32 --width 16" in " ".join(found.stderr.split())
        assert said == bool(size), found.stderr


def test_a_name_is_free_in_every_stage_before_the_first_is_trained(places: list[str], tmp_path: Path) -> None:
    (tmp_path / "tiny" / "global" / "a").mkdir(parents=True)
    (tmp_path / "tiny" / "global" / "a" / "settings.yaml").touch()
    runs = ["--runs", tmp_path, *places[:2], "-d", "tiny", "--name", "a"]
    found = icsr("train", "-m", "icsr", *SETTINGS, "--init", "none", *runs)
    assert (found.exit_code, "global/a already" in found.stderr) == (1, True), found.output
    assert not (tmp_path / "tiny" / "cam").exists()


def test_a_seed_that_joins_a_group_later_is_trained_as_the_others_were(
    places: list[str], tmp_path: Path
) -> None:
    runs = ["--runs", tmp_path, *places[:2], "-d", "tiny", "--name", "group"]
    assert icsr("train", "cam", *SETTINGS, "--seeds", "1", *runs).exit_code == 0
    short = icsr("train", "cam", "--seeds", "1,2", "--resume", *runs)
    assert (short.exit_code, "cam.epochs: 3 in the run" in short.stderr) == (2, True), short.stderr
    assert not (tmp_path / "tiny" / "cam" / "group-seed2").exists()
    info = tmp_path / "tiny" / "cam" / "group-seed1" / "run.json"
    whole = info.read_text()
    info.write_text(whole.replace('"cameras": null', '"cameras": [0, 1]'))
    some = icsr("train", "cam", *SETTINGS, "--seeds", "1,2", "--resume", *runs)
    assert (some.exit_code, "--cameras: given then" in some.stderr) == (2, True), some.stderr
    info.write_text(whole)
    found = icsr("train", "cam", *SETTINGS, "--seeds", "1,2", "--resume", "--json", *runs)
    assert found.exit_code == 0, found.output
    assert [Path(run["run"]).name for run in json.loads(found.stdout)] == ["group-seed1", "group-seed2"]
    settings = [(tmp_path / f"tiny/cam/group-seed{seed}/settings.yaml").read_text() for seed in (1, 2)]
    assert settings[0].replace("seed: 1", "seed: 2") == settings[1]


@pytest.mark.parametrize(("select", "words"), [("silhouette", "silhouette"), ("test-map", "the test set")])
def test_the_chosen_epoch_is_said(places: list[str], tmp_path: Path, select: str, words: str) -> None:
    own = [*SETTINGS, "--set", "global.epochs=2", "-m", "cluster-contrast", "--init", "none", "--name", "a"]
    runs = [*places[:2], "--runs", tmp_path]
    trained = icsr("train", "global", *own, *runs, "--select", select)
    assert trained.exit_code == 0, trained.output
    run = tmp_path / "tiny" / "global" / "a"
    epoch = json.loads((run / "run.json").read_text())["best_epoch"]
    key = "silhouette" if select == "silhouette" else "test_mAP"
    values = [json.loads(line)[key] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert values[epoch - 1] == max(values)
    made = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(made | {"command": ["icsr", "first"]}))
    assert icsr("train", "global", run, "--resume", *runs).exit_code == 0
    assert json.loads((run / "environment.json").read_text()) == made | {"command": ["icsr", "first"]}
    said = f"epoch {epoch}, chosen by {words}"
    assert said in " ".join(trained.stdout.split())
    assert ("The test set chooses" in (run / "log.txt").read_text()) == (select == "test-map")
    assert said in " ".join(icsr("eval", run, *runs).stderr.split())
    assert said not in " ".join(icsr("eval", run / "last.safetensors", *runs).stderr.split())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", [["--help"], ["methods"]])
def test_a_full_disk_behind_standard_output(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "icsr_cli", *command], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr.startswith("Error: the disk is full")) == (1, True), done.stderr


def test_ctrl_c_while_the_commands_load_leaves_no_traceback() -> None:
    interrupted = (
        "import os, signal, sys\n"
        "class Loads:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'icsr_cli.cli':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Loads())\n"
        "from icsr_cli.__main__ import run\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_json_tells_what_was_finished_before_an_interruption(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    done: list[object] = []

    def train(*given: Any, **asked: Any) -> Any:
        done.append(given)
        if len(done) == number:
            raise Interrupted("stopped")
        return real(*given, **asked)

    real = training.run_global_stage
    monkeypatch.setattr(training, "run_global_stage", train)
    own = [
        *SETTINGS,
        "--set",
        "global.epochs=1",
        "-m",
        "cluster-contrast",
        "--init",
        "none",
        "--seeds",
        "1-2",
    ]
    result = icsr("train", "global", *own, *places[:2], "--runs", tmp_path, "--json")
    assert result.exit_code == (0 if number == 3 else 130), result.output
    found = json.loads(result.stdout or "[]")
    assert len(found) == number - 1
    assert all(one["epoch"] == 1 for one in found)


def test_the_page_of_a_label_file_takes_the_pixels_that_are_prepared(
    trained: dict[str, dict[str, object]], places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set's own settings would take 64 x 32."""
    asked: list[bool] = []
    monkeypatch.setattr(
        labels_inspect,
        "make_progress",
        lambda quiet, as_json: asked.append(quiet) or make_progress(quiet, as_json),  # type: ignore[func-returns-value]
    )
    root = tmp_path / "data"
    shutil.copytree(places[1], root, ignore=shutil.ignore_patterns("*64x32*"))
    before = sorted((root / "tiny" / "pixels").iterdir())
    labels, page = Path(str(trained["global"]["run"])) / "labels" / "epoch_001.csv", tmp_path / "page.html"
    shown = icsr("labels", "inspect", labels, "-d", "tiny", "--html", page, "--data-root", root, "-q")
    assert (shown.exit_code, shown.stderr, asked) == (0, "", [True]), shown.output
    assert "data:image" in page.read_text()
    assert sorted((root / "tiny" / "pixels").iterdir()) == before


def test_debug_shows_the_traceback() -> None:
    words = ("methods", "icsr", "--set", "global.clusterer.esp=0.4")
    plain, told = (icsr(*words, *more) for more in ([], ["--debug"]))
    assert (plain.exit_code, told.exit_code) == (2, 2)
    assert ("Traceback" in plain.stderr, "Traceback" in told.stderr) == (False, True)


@pytest.mark.parametrize(
    ("stage", "number", "code"), [("cam", signal.SIGTERM, 143), ("global", signal.SIGINT, 130)]
)
def test_a_signal_saves_and_resume_ends_the_same(
    places: list[str], tmp_path: Path, stage: str, number: signal.Signals, code: int
) -> None:
    """A real process, a real signal in the middle of training, then --resume."""
    options = ["--set", f"{stage}.epochs=5", "--set", f"{stage}.iters=8", *places[:2], "-d", "tiny"]
    on = ["--device", "cpu"]  # a process that was forked has no GPU
    if stage == "global":
        options += ["--refine", "none", "--init", "none", "--debug"]
    runs = tmp_path / "runs"
    command = ["train", stage, *SETTINGS, *options, *on, "--runs", str(runs), "--name"]
    process = Forked(tmp_path / "said", forked.icsr, [*command, "a"])
    metrics = runs / "tiny" / stage / "a" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and process.process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send(number)
    errors = process.end(code)[1]
    assert "--resume" in errors
    assert ("Traceback" in errors) == ("--debug" in command)
    finished = len(metrics.read_text().splitlines())
    assert 1 <= finished < 5
    resumed = icsr("train", stage, "--resume", "--runs", runs, *places[:2], *on)
    assert resumed.exit_code == 0, resumed.output
    whole = icsr(*command, "b")
    assert whole.exit_code == 0, whole.output
    one, other = (runs / "tiny" / stage / name for name in ("a", "b"))
    first, second = (load_file(run / "last.safetensors") for run in (one, other))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    last = "labels/local.csv" if stage == "cam" else "labels/epoch_005.csv"
    labels = [(run / last).read_text() for run in (one, other)]
    assert labels[0] == labels[1]


def test_market_1501_with_the_published_settings_made_small(tiny_root: Path, tmp_path: Path) -> None:
    """The same commands on an archive in Market-1501's true layout, junk and distractors in it."""
    rendered = next((tiny_root / "tiny").glob("rendered-*"))
    shutil.make_archive(str(tmp_path / "market"), "zip", rendered)
    places = ["--data-root", tmp_path / "data", "--runs", tmp_path / "runs"]
    size = ["--height", 32, "--width", 16]
    prepared = icsr(
        "prepare", "market1501", "--source", tmp_path / "market.zip", "--size", "32x16", *places[:2]
    )
    assert prepared.exit_code == 0, prepared.output
    config = tmp_path / "mine.yaml"
    config.write_text(icsr("methods", "icsr", "-d", "market1501").stdout)
    small = ["-d", "market1501", "--config", config, "-a", "resnet18", "-b", 8, "--num-instances", 4,
             "--iters", 1, "--epochs", 1, "--init", "none", *size, *places]  # fmt: skip
    cam = icsr("train", "cam", *small)
    assert cam.exit_code == 0, cam.output
    own = icsr("train", "global", *small, "--set", "global.clusterer.n_clusters=6")
    assert own.exit_code == 0, own.output
    result = icsr("eval", "-d", "market1501", "--json", *places)
    assert result.exit_code == 0, result.output
    queries = len(list((rendered / "query").iterdir()))
    figures = json.loads(result.stdout)["plain"]
    assert figures["queries"] + figures["queries_left_out"] == queries


@pytest.mark.parametrize("kind", [Enum, IntEnum])  # as releases of click and typer have them
def test_what_was_typed_is_known_by_any_kind_of_source(kind: Any) -> None:
    sources: Any = kind("Source", ["COMMANDLINE", "ENVIRONMENT", "DEFAULT"])
    context: Any = SimpleNamespace(
        command=SimpleNamespace(params=[SimpleNamespace(name="count", opts=["-c", "--count"])]),
        get_parameter_source=lambda name: sources.COMMANDLINE if name == "count" else sources.ENVIRONMENT,
    )
    assert from_environment(context, "config")
    assert not from_environment(context, "count")
    with pytest.raises(UsageError, match="leave out --count"):
        refuse_typed(context, ["count"], "It would do nothing;")
