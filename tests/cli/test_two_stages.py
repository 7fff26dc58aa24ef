"""Both stages by one command: what is wrong is found before the first, and --resume goes on with its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process import icsr
from tiny_world import TINY
from typer.testing import Result

from icsr_cli.errors import Interrupted, UsageError
from icsr_cli.models import build, save_weights
from icsr_cli.progress import Progress
from icsr_cli.recipes import opening, resuming, training
from icsr_cli.recipes.interruption import Stop
from icsr_cli.recipes.wish import Wish, images_of
from icsr_cli.runs import RunFolder
from icsr_cli.types import Dataset

SETTINGS = [word for each in (*TINY, "cam.iters=1", "global.iters=1") for word in ("--set", each)]
SHORT = ["--epochs", "1", "--init", "none", "--method", "icsr"]


@pytest.fixture
def train(tiny_root: Path, tmp_path: Path) -> Any:
    """``icsr train`` with these words, the runs in a folder of the test."""
    places = ["-d", "tiny", "--data-root", tiny_root, "--runs", tmp_path]
    return lambda *words: icsr("train", *words, *places, *SETTINGS)


def stopped(*_: Any, **__: Any) -> None:
    raise Interrupted("Stopped.", signal_number=15)


def at_once(*_: Any, **__: Any) -> None:
    raise Stop(2)


def runs(folder: Path, stage: str) -> list[Path]:
    return sorted((folder / "tiny" / stage).glob("*"))


def facts(run: Path) -> Any:
    return json.loads((run / "run.json").read_text())


def ended(result: Result) -> None:
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", [(), ("--name", "second")])
def test_a_run_stopped_in_its_first_stage(train: Any, tmp_path: Path, name: Any) -> None:
    """An older run of the same kind is there, finished: it is not taken for what was stopped."""
    ended(train(*SHORT, "--name", "a first"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_cam_stage", stopped)
        assert train(*SHORT, *name).exit_code == 143
    ended(train(*SHORT, *name, "--resume"))
    cam, own = runs(tmp_path, "cam")[-1 if name else 0], runs(tmp_path, "global")[-1 if name else 0]
    assert len(runs(tmp_path, "global")) == 2
    assert facts(own)["after"] == cam.name != "a first"
    assert facts(own)["local"].startswith(str(cam))
    assert facts(own)["status"] == "finished"
    again = train(*SHORT, *name, "--resume")
    ended(again)
    assert f"Network: {own}" in again.output
    assert len(runs(tmp_path, "global")) == 2


@pytest.mark.parametrize(
    "own",
    [
        "--clusterer average-linkage --set global.clusterer.images_per_cluster=2",
        "-b 12 --set cam.num_instances=3 --set global.num_instances=3",
        "--local tracks --set cam.clusterer.join=0.7",
    ],
)
def test_assignments_reach_into_what_options_name(tiny_root: Path, tmp_path: Path, own: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_cam_stage", stopped)  # what is looked at before has found no fault
        words = ["-d", "tiny", "--data-root", tiny_root, "--runs", tmp_path, "--height", 32, "--width", 16]
        assert icsr("train", "-m", "icsr", *own.split(), *words).exit_code == 143


def test_seeds_that_begin_later_have_the_local_labels_of_the_others(train: Any, tmp_path: Path) -> None:
    ended(train("cam", "--epochs", "1", "--init", "none", "--name", "first"))
    own = ("global", *SHORT, "--name", "group", "--seeds")
    ended(train(*own, "1"))
    labels = tmp_path / "tiny/cam/first/labels/local.csv"
    other = tmp_path / "other.csv"
    other.write_text(labels.read_text().replace("kept", "node"))
    shutil.copytree(tmp_path / "tiny/cam/first", tmp_path / "tiny/cam/newer")
    shutil.copy(other, tmp_path / "tiny/cam/newer/labels/local.csv")
    refused = train(*own, "1,2", "--resume", "--local", str(other))
    assert refused.exit_code == 2
    ended(train(*own, "1,2", "--resume"))
    first, second = (facts(tmp_path / f"tiny/global/group-seed{seed}") for seed in (1, 2))
    assert (second["local"], second["local_sha256"]) == (first["local"], first["local_sha256"])


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_another_global_stage_than_the_groups_is_refused_before_the_cam_stage(
    train: Any, tmp_path: Path, resume: Any
) -> None:
    own = (*SHORT, "--name", "group", "--seeds")
    ended(train(*own, "1"))
    refused = train(*own, "2", *resume, "--set", "global.model.pooling=avg")
    assert refused.exit_code == 2
    assert "global.model.pooling: 'gem' in the run, 'avg' asked for" in refused.stderr
    assert [run.name for run in runs(tmp_path, "cam")] == ["group-seed1"]
    ended(train(*own, "2", *resume))


def test_a_seed_that_begins_later_has_what_the_others_had(tiny: Dataset, tmp_path: Path) -> None:
    """Cameras, pairs and local labels are no settings; they are held against those of the others, too."""
    labels, same, other, pairs, doubt = (
        tmp_path / f"{name}.csv" for name in ("labels", "same", "other", "pairs", "doubt")
    )
    # Local labels begin at 0 under each camera: that of one cluster has no other.
    rows = [f"{one.path},{one.camera},,0,0,0,kept" for one in tiny.train.records]
    table = "\n".join(["path,camera,identity,cluster,local_cluster,label,state", *rows, ""])
    for file in (labels, same):
        file.write_text(table)
    other.write_text(table.replace("kept", "node"))
    pairs.write_text("first,second,answer\n{},{},same\n".format(*tiny.train.paths[:2]))
    doubt.write_text(pairs.read_text().replace("same", "different"))
    settings = (*TINY, "global.model.weights=none")
    begun = Wish(tmp_path, "camera-aware", assignments=settings, local=labels, name="two-seed1")
    run, _ = opening.start(tiny, "global", begun, Progress())
    opening.start(tiny, "global", replace(begun, name="three-seed1", pairs=pairs), Progress())
    some, _ = opening.start(tiny, "global", replace(begun, name="some-seed1"), Progress())
    some.update_info(cameras=[0, 1])  # as a cam run has them

    def held(group: str = "two", **own: Any) -> Wish:
        wish = replace(begun, name=f"{group}-seed2", **own)
        return resuming.like_others(tiny, "global", wish, group)

    assert held().local == labels
    assert held(local=None).local == labels
    assert held(local=same).local == same
    assert held("three", pairs=pairs).pairs == pairs
    assert held(pairs=pairs, cameras=[0], after=tmp_path).cameras == [0]  # those of its cam run
    for group, own, said in [
        ("two", {"cameras": [0]}, "--cameras: given now, not then"),
        ("two", {"pairs": pairs}, "--pairs: given now, not then"),
        ("some", {"cameras": [0, 2]}, "--cameras: others than then"),
        ("three", {}, "--pairs: given then, not now"),
        ("three", {"pairs": doubt}, "--pairs: others than then"),
        ("two", {"local": other}, "--local: other labels than then"),
        ("two", {"plugins": [("my.py", "0" * 64)]}, "my.py too much"),
    ]:
        with pytest.raises(UsageError, match=said):
            held(group, **own)
    labels.write_text(other.read_text())  # the run has its own copy
    assert held(local=None).local == run.local
    labels.unlink()
    assert held(local=None).local == run.local
    run.update_info(after="first")  # from now on they are those of its cam run
    assert held(local=None).local is None


@pytest.mark.parametrize("name", [(), ("--name", "own")])
def test_resume_alone_goes_on_with_what_was_stopped(
    train: Any, tiny_root: Path, tmp_path: Path, name: Any
) -> None:
    """With its method and its options, those of the stage that had not begun too."""
    ended(train("global", "--epochs", "1", "--init", "none", "-m", "cluster-contrast", "--name", "another"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_cam_stage", stopped)
        assert train(*SHORT, "--seed", "7", *name).exit_code == 143
    bare = ("train", "--resume", "-d", "tiny", *name, "--data-root", tiny_root, "--runs", tmp_path)
    ended(icsr(*bare))
    [cam], own = runs(tmp_path, "cam"), runs(tmp_path, "global")[1 if name else 0]
    assert facts(own)["after"] == cam.name
    assert facts(own)["status"] == facts(cam)["status"] == "finished"
    assert own.name == "own" or not name
    settings = RunFolder(own).settings()
    assert (settings["method"], settings["seed"], settings["global"]["iters"]) == ("icsr", 7, 1)
    assert settings["global"]["model"]["weights"] == "none"
    again = icsr(*bare)
    ended(again)
    assert f"Network: {own}" in again.output
    assert len(runs(tmp_path, "global")) == 2


def test_resume_alone_of_one_stage(train: Any, tmp_path: Path) -> None:
    ended(train("cam", *SHORT, "--name", "own"))
    ended(train("--resume"))
    ended(train("--resume", "--name", "own"))
    assert not runs(tmp_path, "global")
    ended(train("--resume", tmp_path / "tiny/cam/own"))
    assert "yours is no stage: icsr train cam" in train("yours").stderr
    assert "yours is no run folder: it is not there" in train("yours", "--resume").stderr
    refused = train("--resume", "--refine", "none")
    assert refused.exit_code == 2
    assert "--refine belongs to the other stage than the one that is trained here, cam" in refused.stderr


@pytest.mark.parametrize(("killed", "name"), [(1, ()), (2, ("--name", "own")), (3, ())])
def test_a_run_killed_before_it_was_written_down(train: Any, tmp_path: Path, name: Any, killed: int) -> None:
    """It is begun anew, by --resume where another run says how; it lacks its settings, and more perhaps."""
    ended(train(*SHORT, "--name", "own"))
    own = tmp_path / "tiny/global/own"

    def kill(run: Path) -> None:
        facts = json.loads((run / "run.json").read_text())
        shutil.rmtree(run)
        run.mkdir()
        if killed > 1:
            few = ("stage", "dataset", "started")
            kept = facts if killed > 2 else {key: facts[key] for key in few}
            (run / "run.json").write_text(json.dumps(kept | {"status": "running"}))

    kill(own)
    ended(train("--resume", *name))
    assert facts(own)["status"] == "finished"
    assert len(runs(tmp_path, "global")) == 1
    kill(own)
    refused = train("global", *SHORT, "--resume", "--name", "own")
    assert (refused.exit_code, "without --resume begins it" in " ".join(refused.stderr.split())) == (1, True)
    kill(tmp_path / "tiny/cam/own")
    ended(train(*SHORT, "--name", "own"))


@pytest.mark.parametrize(
    "place", [(training, "run_cam_stage"), (training, "run_global_stage"), (opening, "_global_inputs")]
)
def test_a_signal_that_ends_the_command_at_once(train: Any, tmp_path: Path, place: Any) -> None:
    """In training the second signal, or one between two runs: what was begun is in the way of a new run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*place, at_once)
        ended_at_once = train(*SHORT, "--seeds", "5,6")
    assert ended_at_once.exit_code == 130
    said = " ".join(ended_at_once.stderr.split())
    group = runs(tmp_path, "cam")[0].name.removesuffix("-seed5")
    assert f"go on with the same command and --name {group} --resume" in said
    ended(train(*SHORT, "--seeds", "5,6", "--name", group, "--resume"))
    assert [run.name for run in runs(tmp_path, "global")] == [f"{group}-seed5", f"{group}-seed6"]


def test_one_run_of_a_group_that_was_stopped(train: Any, tmp_path: Path) -> None:
    """It goes on alone, and says what is left of the group; the group's own name is that of no run."""
    group = ("--seeds", "5,6", "--name", "two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_cam_stage", at_once)
        assert train(*SHORT, *group).exit_code == 130
    named = train("--resume", "--name", "two")
    again = "--seeds 5,6 --name two --resume"
    assert (named.exit_code, again in " ".join(named.stderr.split())) == (2, True), named.output
    alone = train("--resume")
    ended(alone)
    assert [run.name for run in runs(tmp_path, "global")] == ["two-seed5"]
    assert "not finished: seed 6." in " ".join(alone.stderr.split())
    assert again in " ".join(alone.stderr.split())
    ended(train(*SHORT, *group, "--resume"))
    alone = train("--resume")
    ended(alone)
    assert "not finished" not in alone.stderr


def test_a_signal_before_anything_was_begun(train: Any, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "write_settings", at_once)
        found = train(*SHORT, "--name", "own")
    assert (found.exit_code, "the same command starts again" in found.stderr) == (130, True)
    assert not runs(tmp_path, "cam")


def test_a_cam_run_of_its_own_gets_no_second_stage(train: Any, tmp_path: Path) -> None:
    """Nor where the method, named again, has two; one that belongs to a stopped command says how to go on."""
    ended(train("cam", *SHORT, "--name", "own"))
    ended(train("--resume", "-m", "icsr"))
    assert not runs(tmp_path, "global")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_cam_stage", stopped)
        assert train(*SHORT, "--name", "both").exit_code == 143
    first = train("cam", "--resume")
    ended(first)
    assert "icsr train --resume -d tiny --name both" in " ".join(first.output.split())


def test_a_name_says_which_data_set_is_meant(train: Any, tiny_root: Path, tmp_path: Path) -> None:
    ended(train("cam", *SHORT, "--name", "own"))
    other = tmp_path / "other/cam/newer"
    shutil.copytree(tmp_path / "tiny/cam/own", other)
    RunFolder(other).update_info(dataset="other", started="2999")
    places = ("--data-root", tiny_root, "--runs", tmp_path)
    ended(icsr("train", "--resume", "--name", "own", *places))
    other.rename(other.with_name("own"))
    refused = icsr("train", "--resume", "--name", "own", *places)
    assert (refused.exit_code, "other and tiny are called own" in refused.stderr) == (2, True)


def test_options_of_a_refiner_that_the_command_names(train: Any, tmp_path: Path) -> None:
    ended(train(*SHORT, "--refine", "majority", "--set", "global.refiners.least=0.4"))
    [own] = runs(tmp_path, "global")
    assert RunFolder(own).settings()["global"]["refiners"] == [{"method": "majority", "least": 0.4}]


def test_settings_that_changed_before_the_second_stage(train: Any, tmp_path: Path) -> None:
    """Or are gone: those count that the command was given, of which the cam run keeps a copy."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("global: {optimizer: {lr: 0.0007}}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_cam_stage", stopped)
        assert train(*SHORT, "--config", mine).exit_code == 143
    mine.unlink()
    copy = runs(tmp_path, "cam")[0] / "then.yaml"
    copy.write_text("global: {optimizer: {lr: 0.0009}}\n")
    refused = train("--resume")
    assert (refused.exit_code, "then.yaml has changed" in " ".join(refused.stderr.split())) == (1, True)
    copy.write_text("global: {optimizer: {lr: 0.0007}}\n")
    ended(train("--resume"))
    assert RunFolder(*runs(tmp_path, "global")).settings()["global"]["optimizer"]["lr"] == 0.0007


def test_files_that_change_while_the_first_run_is_trained(train: Any, tiny: Dataset, tmp_path: Path) -> None:
    """Later stages and later seeds obey what the command was given; a newer cam run changes nothing."""
    mine, said = tmp_path / "mine.yaml", tmp_path / "said.csv"
    mine.write_text("global: {optimizer: {lr: 0.0007}}\n")
    first, second, *_ = tiny.train.paths
    said.write_text(f"first,second,answer\n{first},{second},same\n")
    run_cam_stage, run_global_stage = training.run_cam_stage, training.run_global_stage

    def cam_and_edits(*given: Any) -> Any:
        mine.write_text("global: {optimizer: {lr: 0.0009}}\n")
        said.unlink(missing_ok=True)
        return run_cam_stage(*given)

    def global_and_another(*given: Any) -> Any:
        newer = tmp_path / "tiny/cam/newer"
        if not newer.exists():
            shutil.copytree(tmp_path / "tiny/cam/both-seed1", newer)
            RunFolder(newer).update_info(started="2999")
        return run_global_stage(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_cam_stage", cam_and_edits)
        own = ("--config", mine, "--pairs", said, "--name", "both", "--seeds", "1,2")
        ended(train(*SHORT, *own))
    both = runs(tmp_path, "global")
    assert [RunFolder(run).settings()["global"]["optimizer"]["lr"] for run in both] == [0.0007] * 2
    assert [facts(run)["pairs"]["same"] for run in (*runs(tmp_path, "cam"), *both)] == [1] * 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_global_stage", global_and_another)
        ended(train("global", *SHORT, "--name", "alone", "--seeds", "1,2"))
    assert [facts(run)["local"] for run in runs(tmp_path, "global")[:2]] == [
        str(tmp_path / "tiny/cam/both-seed2/labels/local.csv")
    ] * 2


def test_the_method_named_again(train: Any, tiny_root: Path, tmp_path: Path) -> None:
    """That of the run says nothing new, and asks for no setting again; another one is all that is wrong."""
    ended(train("global", "--epochs", "1", "--init", "none", "-m", "cluster-contrast"))
    again = ("train", "global", "--resume", "-d", "tiny", "--data-root", tiny_root, "--runs", tmp_path, "-m")
    ended(icsr(*again, "cluster-contrast"))
    refused = icsr(*again, "camera-aware")
    assert refused.exit_code == 2
    assert "with the method cluster-contrast, not camera-aware" in refused.stderr
    assert "other settings" not in refused.stderr


def test_cameras_of_the_first_stage(train: Any) -> None:
    words = (*SHORT, "--cameras", "0,1", "--name", "two", "--set", "global.refiners.0.k=10")
    both = train(*words)
    ended(both)
    assert both.output.count("Next: ") == 1  # the cam stage advises nothing that this command does itself
    ended(train(*SHORT, "--cameras", "1,0", "--name", "two", "--resume"))
    other = train(*SHORT, "--cameras", "0", "--name", "two", "--resume")
    assert other.exit_code == 2
    assert "with the cameras [0, 1], not with [0]" in other.stderr


FROM_CAM = ["cam.model.weights=none", "global.model.weights=cam", "cam.network=shared"]


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["global.model.weights=/nowhere.pth"], "/nowhere.pth"),
        (["global.clusterer=tracks"], "global.clusterer.eps=0.7): no such setting; known: split"),
        ([*FROM_CAM, "cam.network=per-camera"], "cam.network is per-camera. Take --network shared"),
        ([*FROM_CAM, "global.model.stripes=2"], "global.model.stripes: 2 asked for, 4 there"),
        ([*FROM_CAM, "global.model.freeze=[stem]"], "global.model.freeze: resnet_small has no part 'stem'"),
    ],
)
def test_faults_of_the_second_are_found_before_the_first(
    train: Any, tmp_path: Path, assignments: list[str], said: str
) -> None:
    found = train(*SHORT, *(word for each in assignments for word in ("--set", each)))
    assert found.exit_code == (1 if "/nowhere" in said else 2)
    assert said in " ".join(found.stderr.split())
    assert not runs(tmp_path, "cam")


def test_other_images_than_then(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ("cam", *SHORT, "--name", "own")
    ended(train(*own))
    ended(train(*own, "--resume"))
    monkeypatch.setattr(resuming, "images_of", lambda data: "others")
    changed = train(*own, "--resume")
    assert changed.exit_code == 2
    assert "prepared again, or added to" in changed.stderr


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("64 x 48", "was trained on images of 64 x 48, and these are 32 x 16. --height 64 --width 48 takes"),
        ("32 x 16", ""),
    ],
)
def test_weights_of_images_of_another_size(train: Any, tmp_path: Path, size: str, said: str) -> None:
    weights = tmp_path / "weights.safetensors"
    height, width = size.split(" x ")
    save_weights(build("resnet_small", seed=1), weights, {"height": height, "width": width})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_global_stage", stopped)
        begun = train("global", "-m", "camera-aware", "--set", "global.model.stripes=1", "--init", weights)
    assert begun.exit_code == 143, begun.output
    found = " ".join(begun.stderr.split())
    assert (said in found, "was trained on images" in found) == (True, bool(said))


def test_images_are_known_by_paths_cameras_and_order(tiny: Any) -> None:
    own = tiny.train.records
    changed = (own[::-1], own[1:], (replace(own[0], camera=2 - own[0].camera), *own[1:]))
    found = {
        images_of(replace(tiny, splits={"train": replace(tiny.train, records=tuple(records))}))
        for records in (own, *changed)
    }
    assert len(found) == 4


def test_local_labels_are_used_where_they_are_given(train: Any, tmp_path: Path) -> None:
    """By a refiner that the method has not, as those of ``global.local`` are; for weights alone by none."""
    ended(train("cam", *SHORT, "--name", "cam"))
    given = ("global", "--epochs", "1", "--local", tmp_path / "tiny/cam/cam", "--method", "camera-aware")
    words = (*given, "--init", "none", "--name", "own")
    refused = train(*words, "--refine", "none")
    assert refused.exit_code == 2
    assert "No refiner uses the local labels" in refused.stderr
    ended(train(*words))
    assert "majority" in (tmp_path / "tiny/global/own/settings.yaml").read_text()
    ended(train(*words, "--resume"))
    ended(train("global", "--method", "camera-aware", "--name", "own", "--resume", "--init", "none"))
    ended(train(*given, "--init", "cam", "--name", "weights"))
    assert "majority" not in (tmp_path / "tiny/global/weights/settings.yaml").read_text()


def test_a_setting_of_a_refiner_that_the_method_has_not(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that the command names, it is known before the stages are."""
    monkeypatch.setattr(training, "run_global_stage", stopped)
    local = ("--set", "global.local={method: average-linkage, images_per_cluster: 2}", "--init", "none")
    words = ("-m", "camera-aware", *local, "--set", "global.refiners.0.least=0.4")
    refused = train(*words)
    assert refused.exit_code == 2
    assert "refiners is a list of 0: give it whole, or name some first (--refine NAME)" in refused.stderr
    assert train(*words, "--refine", "majority").exit_code == 143
    assert RunFolder(*runs(tmp_path, "global")).settings()["global"]["refiners"][0]["least"] == 0.4


def test_settings_from_the_environment_are_for_new_runs(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("global", "--epochs", "1", "--init", "none", "--name", "own")
    (tmp_path / "mine.yaml").write_text("seed: 7\n")
    ended(train(*own, "--method", "cluster-contrast"))
    monkeypatch.setenv("ICSR_CONFIG", str(tmp_path / "mine.yaml"))
    ended(train(*own, "--resume"))
    typed = train(*own, "--resume", "--config", tmp_path / "mine.yaml")
    assert typed.exit_code == 2
    assert "other settings" in typed.stderr


def test_stages_stand_in_their_order(train: Any) -> None:
    for wrong in ("[]", "[global,cam]", "[cam,cam]"):
        refused = train("--set", f"stages={wrong}")
        assert refused.exit_code == 2
        assert "[cam], [global] or [cam, global]" in refused.stderr


def test_many_cameras_that_are_not_there(train: Any) -> None:
    refused = train("cam", "--cameras", "0-999999")
    assert refused.exit_code == 2
    assert "no camera 3, 4, 5, 6, 7 and 999,992 more" in refused.stderr


def test_resume_looks_for_nothing_that_new_runs_need(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("--set", "stages=[cam,global]", "--name", "own")
    ended(train(*both, "--epochs", "1", "--init", "none", "--refine", "discard"))
    (tmp_path / "new.yaml").write_text("global: {model: {weights: /nowhere.pth}}\n")
    monkeypatch.setenv("ICSR_CONFIG", str(tmp_path / "new.yaml"))
    ended(train(*both, "--resume"))
