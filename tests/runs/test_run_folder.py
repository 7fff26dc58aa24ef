from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file

from icsr_cli.errors import RunError, UsageError
from icsr_cli.files import whole_file, write_json, write_text
from icsr_cli.progress import Progress
from icsr_cli.runs import (
    LoggedProgress,
    align_local,
    create,
    evaluation,
    find_runs,
    newest,
    open_run,
    read_labels,
    run_of,
    tabulate,
    write_labels,
)
from icsr_cli.runs.evaluation import image_thresholds, read_evaluations, record_evaluations, weights_digest
from icsr_cli.runs.folder import epoch_of
from icsr_cli.runs.places import begin, clear_not_begun
from icsr_cli.types import ImageRecord, Labels, Split


def split_of(n: int, cameras: int = 2) -> Split:
    return Split(
        Path("/nowhere"), tuple(ImageRecord(f'a/{i}, "x".jpg', i % cameras, i // 3) for i in range(n))
    )


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first")

    def fail() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("sec")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        fail()
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can ask whether a process lives")
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead, alive = process.pid, os.getppid()
    names = [
        f".a.txt.{dead}.tmp",
        f".a.txt.{alive}.tmp",
        f".b.txt.{dead}.tmp",
        f".a.txt.{dead}",
        ".a.txt.x.tmp",
    ]
    for name in names:
        (tmp_path / name).write_text("half")
    fixed = tmp_path / f".a.txt.0{dead}.tmp"  # a folder cannot be removed as a file, like another user's
    fixed.mkdir()
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.txt", fixed.name, *names[1:]])


def test_runs_get_names_of_their_own(tmp_path: Path) -> None:
    runs = [create(tmp_path, "market1501", "cam") for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert find_runs(tmp_path, "market1501", "cam")[0].path == runs[0].path
    assert (runs[0].stage, runs[0].dataset) == ("cam", "market1501")
    create(tmp_path, "market1501", "cam", name="mine").write_settings({})
    with pytest.raises(RunError, match="--resume"):
        create(tmp_path, "market1501", "cam", name="mine")


def test_the_newest_run_that_holds_a_file(tmp_path: Path) -> None:
    first = create(tmp_path, "market1501", "cam", name="a")
    create(tmp_path, "market1501", "cam", name="b")
    create(tmp_path, "other", "cam", name="c")
    write_text(first.labels / "local.csv", "")
    assert newest(tmp_path, "market1501", "cam").path.name == "b"
    assert newest(tmp_path, "market1501", "cam", file="labels/local.csv").path.name == "a"
    with pytest.raises(RunError, match="icsr train global -d market1501"):
        newest(tmp_path, "market1501", "global")
    shutil.copytree(first.path, tmp_path / "third" / "cam" / "a")  # of one name, begun at one moment
    assert [run.path.name for run in find_runs(tmp_path)] == ["a", "a", "b", "c"]


def test_what_a_run_says_of_itself(tmp_path: Path) -> None:
    run = create(tmp_path, "d", "global")
    run.update_info(camera_names=["door", "hall"])
    assert [run.camera_name(camera) for camera in range(3)] == ["door", "hall", "2"]
    assert run.elapsed() is None
    run.update_info(started="2026-01-01T00:00:00+00:00", ended="2026-01-01T00:01:30+00:00")
    run.finish()  # it was before: there was nothing left to do
    assert run.elapsed() == 90
    other = create(tmp_path, "d", "global", name="other")
    other.finish()
    assert other.info()["ended"] >= other.info()["started"]
    assert run.local is None
    run.update_info(local="/old/local.csv")  # runs that are older than the copies name the file alone
    assert run.local == Path("/old/local.csv")
    (tmp_path / "labels.csv").write_text("path\n")
    run.keep_local(tmp_path / "labels.csv")
    assert run.local == run.path / "local.csv"


def test_a_run_is_opened_by_its_folder(tmp_path: Path) -> None:
    run = create(tmp_path, "market1501", "global")
    assert open_run(run.path) == run
    inside = run.labels / "epoch_001.csv"
    assert run_of(inside) == run_of(run.path) == run
    assert run_of(tmp_path) is None
    with pytest.raises(RunError, match="Give the run itself"):
        open_run(inside)
    for place, why in ((tmp_path, "there is no run.json in it"), (tmp_path / "elsewhere", "it is not there")):
        with pytest.raises(RunError, match=f"no run folder: {why}"):
            open_run(place)


def test_states_hold_tensors_and_plain_values_only(tmp_path: Path) -> None:
    run = create(tmp_path, "d", "cam")
    assert run.load_state("camera_0") is None
    run.save_state("camera_0", {"epoch": 3, "weights": torch.arange(4.0)})
    state = run.load_state("camera_0")
    assert state is not None
    assert state["epoch"] == 3
    assert torch.equal(state["weights"], torch.arange(4.0))
    path = run.path / "checkpoints" / "camera_0.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="cannot be read"):
        run.load_state("camera_0")


def test_metrics_and_log(tmp_path: Path) -> None:
    run = create(tmp_path, "d", "global")
    assert run.metrics() == []
    run.write_metrics([{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.5}])
    assert [line["loss"] for line in run.metrics()] == [2.5, 1.5]
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 2
    below = Mock()
    progress = LoggedProgress(run, below)
    progress.report("Epoch 1/2", {"loss": 2.5})
    progress.warn("a camera is empty")
    progress.note("a note")
    below.report.assert_called_once_with("Epoch 1/2", {"loss": 2.5})
    below.warn.assert_called_once_with("a camera is empty")
    below.note.assert_called_once_with("a note")
    log = (run.path / "log.txt").read_text()
    assert "Epoch 1/2  loss=2.5" in log
    assert "Warning: a camera is empty" in log
    for name in ("log.txt", "metrics.jsonl"):
        (run.path / name).unlink()
        os.mkfifo(run.path / name)
    with pytest.raises(RunError, match=r"log\.txt .*not a file"):
        LoggedProgress(run, Progress())
    with pytest.raises(RunError, match=r"metrics\.jsonl .*not a file"):
        run.metrics()


def test_endless_settings_are_not_read(tmp_path: Path) -> None:
    run = create(tmp_path, "d", "global")
    with (run.path / "settings.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RunError, match="longer than"):
        run.settings()


def test_events_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = create(tmp_path, "d", "global")
    run.record({"epoch": 1, "loss": 9.0})
    assert not (run.path / "events").exists()
    run.update_info(tensorboard=True)
    run.record({"epoch": 2, "loss": 2.5, "quality": {"refined": {"nmi": 0.5, "pairwise_f": 0.5}}})
    assert [line["epoch"] for line in run.metrics()] == [1, 2]
    events = EventAccumulator(str(run.path / "events" / "global"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(2, 2.5)]
    assert events.Scalars("quality/refined/nmi")[0].value == 0.5


def test_a_state_of_settings_that_were_changed_since_is_refused(tmp_path: Path) -> None:
    run = create(tmp_path, "d", "global")
    own = {"epochs": 3, "refiners": [{"method": "split", "k": 5}]}
    run.write_settings({"global": own, "cam": {"epochs": 9}, "evaluation": {"batch_size": 8}})
    run.save_state("global", {"epoch": 3})
    run.write_settings({"global": own | {"new": 1}, "cam": {"epochs": 1}, "evaluation": {"batch_size": 4}})
    assert run.load_state("global") == {"epoch": 3}
    for change in ({"epochs": 5}, {"refiners": []}, {"refiners": [{"method": "split", "k": 4}]}):
        run.write_settings({"global": own | change})
        with pytest.raises(RunError, match=f"changed after .*: global.{next(iter(change))}"):
            run.load_state("global")
    run.save_state("global", {"epoch": 4})  # made by the settings that the run began with
    with pytest.raises(RunError, match=r"changed after .*: global\.refiners"):
        run.load_state("global")
    run.write_settings({"global": own})
    assert run.load_state("global") == {"epoch": 4}


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    first, second = create(tmp_path, "d", "global", name="a"), create(tmp_path, "d", "global", name="b")
    first.save_state("global", {"epoch": 3})
    assert first.load_state("global") == {"epoch": 3}
    shutil.copytree(first.path, tmp_path / "moved")
    assert open_run(tmp_path / "moved").load_state("global") == {"epoch": 3}
    (second.path / "checkpoints").mkdir(exist_ok=True)
    shutil.copy(first.path / "checkpoints" / "global.pt", second.path / "checkpoints")
    with pytest.raises(RunError, match="is of another run"):
        second.load_state("global")


def test_damaged_run_json_is_said(tmp_path: Path) -> None:
    run = create(tmp_path, "d", "cam")
    (run.path / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json"):
        run.info()
    assert json.loads('{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("name", ["epoch_001.csv", "labels.npz"])
def test_labels_come_back_as_they_went(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    clusters = np.array([0, 0, 1, 1, 1, -1, 2, 2, 2])
    found = Labels.of(clusters)
    out = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1], dtype=bool)
    odd = rng.standard_normal(9).astype(np.float32) * np.float32(1e-7)
    odd[[2, 5]] = np.nan
    labels = Labels(
        clusters,
        np.where(out, -1, clusters),
        found.marked(([0, 3, 6], "node"), (out, "thrown out by the method of tomorrow")),
        columns={"odd": odd, "whole": np.arange(9), "round": np.ones(9, dtype=np.float32)},
    )
    table = tabulate(split_of(9), labels, local=np.arange(9) % 2)
    odd_names = ["a\u2028b", "c\r2", "d\x85", 'q"u', "n\nl", "caf\udce9", "x\x1c,", "y\x0b\x0c", "z"]
    table = replace(table, paths=tuple(odd_names))
    path = tmp_path / "labels" / name
    write_labels(path, table)
    again = read_labels(path)
    assert again.paths == table.paths
    assert again.states.tolist() == labels.states.tolist()
    assert again.states[1] == "thrown out by the method of tomorrow"
    for column in ("cameras", "identities", "clusters", "local_clusters", "labels"):
        np.testing.assert_array_equal(getattr(again, column), getattr(table, column))
    assert list(again.columns) == ["odd", "whole", "round"]
    for column, values in table.columns.items():
        assert again.columns[column].dtype == values.dtype
        np.testing.assert_array_equal(again.columns[column], values)


def test_names_of_another_tool_may_be_bytes(tmp_path: Path) -> None:
    numbers = {name: np.arange(2) for name in ("camera", "identity", "cluster", "local_cluster", "label")}
    states, path = np.array([b"kept", b"kept"]), tmp_path / "labels.npz"
    np.savez(path, path=np.array(["é".encode(), b"caf\xe9"]), state=states, **numbers)
    assert read_labels(path).paths == ("é", "caf\udce9")
    np.savez(path, path=np.arange(2), state=states, **numbers)
    with pytest.raises(RunError, match="path must be strings"):
        read_labels(path)
    for odd in (np.array(["a", "\ud800"]), np.full(2, 1 << 30, np.uint32).view("U1")):
        np.savez(path, path=odd, state=states, **numbers)
        with pytest.raises(RunError, match="path must be strings that can be written"):
            read_labels(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,camera\na,0\n", "lacks"),
        ("path,camera,identity,cluster,local_cluster,label,state\na,0\n", "cut off"),
        ("path,camera,identity,cluster,local_cluster,label,state\na,0,1,1,1,1,kept", "last line .* cut off"),
        ("path,camera,identity,cluster,local_cluster,label,state\n", "labels of no image"),
        (
            "path,camera,identity,cluster,local_cluster,label,state\na,0,,99999999999999999999,0,0,kept\n",
            "whole",
        ),
        ("", "labels of no image"),
        *(
            (f"path,camera,identity,cluster,local_cluster,label,state\na,0,,{odd},0,0,kept\n", "whole number")
            for odd in ("x", "-7", "1_0", " 1", "٣", "1.0", "9" * 19)
        ),
        (
            "path,camera,identity,cluster,local_cluster,label,state,cohesion\na,0,,0,0,0,kept,b\n",
            "damaged: the column cohesion must be numbers: .*string to float: .b",
        ),
        (
            'path,camera,identity,cluster,local_cluster,label,state\n"a\nb",0,,0,0,0,kept\n\nc,0\n',
            "Line 5 of",
        ),
        (
            "path,camera,identity,cluster,local_cluster,label,state\na,0,,0,0,0,noise\n",
            "label 0 and the state 'noise'",
        ),
        (
            "path,camera,identity,cluster,local_cluster,label,state\na,0,,0,0,,kept\n",
            "label -1 and the state",
        ),
        (
            "path,camera,identity,cluster,local_cluster,label,state,label\na,0,,0,0,0,kept,1\n",
            "2 columns 'label'",
        ),
        *(
            (
                "path,camera,identity,cluster,local_cluster,label,state,cohesion\n"
                f"b,0,,0,0,0,kept,inf\na,0,,0,0,0,kept,{odd}\n",
                f"column cohesion holds {odd}, too large",
            )
            for odd in ("1e39", "-1e400", "9" * 40)
        ),
    ],
)
def test_damaged_labels_are_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(RunError, match=words):
        read_labels(path)
    with pytest.raises(RunError, match="no labels"):
        read_labels(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ([1e39, 0], "holds 1e.39, too large"),
        ([1j, 0], "must be numbers, got dtype complex128"),
        (np.zeros(2, "M8[s]"), "must be numbers, got dtype datetime64"),
        (np.zeros(2, "f4,f4"), "must be numbers, got dtype"),
    ],
)
def test_columns_that_are_no_numbers_are_refused(tmp_path: Path, odd: Any, words: str) -> None:
    path = tmp_path / "labels.npz"
    labels = replace(Labels.of(np.arange(2)), columns={"cohesion": np.array([np.inf, 0], np.float32)})
    write_labels(path, tabulate(split_of(2), labels))
    assert read_labels(path).columns["cohesion"].tolist() == [np.inf, 0]
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, "cohesion": np.array(odd)})
    with pytest.raises(RunError, match=words):
        read_labels(path)


def test_what_is_not_known_is_written_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    split = Split(tmp_path, tuple(ImageRecord(name, camera, -1) for name, camera in (("a", 0), ("b", 2))))
    write_labels(path, tabulate(split, Labels.of(np.array([0, -1]))))
    assert path.read_text().splitlines()[1:] == ["a,0,,0,-1,0,kept", "b,2,,-1,-1,-1,noise"]


def test_labels_that_a_spreadsheet_saved_begin_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    head, row = "path,camera,identity,cluster,local_cluster,label,state", "a.jpg,2,,5,,5,kept"
    path.write_text(f"{head}\r\n{row}\r\n", encoding="utf-8-sig", newline="")
    table = read_labels(path)
    assert (table.paths, table.cameras.tolist(), table.labels.tolist()) == (("a.jpg",), [2], [5])


def test_local_labels_are_found_by_path(tmp_path: Path) -> None:
    split = split_of(8)
    table = tabulate(split, Labels.of(np.arange(8)), local=np.arange(8))
    backwards = split.select(np.arange(7, -1, -1))
    np.testing.assert_array_equal(align_local(table, backwards, tmp_path), np.arange(7, -1, -1))
    part = tabulate(split.select([1, 3]), Labels.of(np.zeros(2, int)), local=np.array([5, 6]))
    np.testing.assert_array_equal(align_local(part, split, tmp_path), [-1, 5, -1, 6, -1, -1, -1, -1])


def test_local_labels_of_another_data_set_are_refused(tmp_path: Path) -> None:
    table = tabulate(split_of(8), Labels.of(np.arange(8)), local=np.arange(8))
    other = Split(Path("/"), (ImageRecord("other.jpg", 0),))
    with pytest.raises(RunError, match=r"other\.jpg"):
        align_local(table, other, tmp_path)
    with pytest.raises(RunError, match="another camera"):
        align_local(table, split_of(8, cameras=3), tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_labels_that_name_an_image_twice_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"labels{suffix}"
    write_labels(path, tabulate(split_of(8).select([1, 2, 1]), Labels.of(np.arange(3))))
    with pytest.raises(RunError, match=r"a/1.* 2 times"):
        read_labels(path)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"stage": "cam"}', '{"stage": 3, "dataset": "d"}', "\xff", "[" * 9999]
    + [f'{{"stage": "cam", "dataset": "d", {odd}}}' for odd in ('"plugins": 5', '"cameras": "x"')],
)
def test_one_damaged_run_does_not_hide_the_others(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, broken = create(tmp_path, "d", "cam", name="a"), create(tmp_path, "d", "cam", name="b")
    (broken.path / "run.json").write_bytes(text.encode("latin-1"))
    assert newest(tmp_path, "d", "cam").path == whole.path
    assert "run.json" in caplog.text
    with pytest.raises(RunError, match=r"run\.json"):
        open_run(broken.path).info()


def test_a_last_line_that_is_cut_off_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = create(tmp_path, "d", "global")
    for epoch in (1, 2):
        run.record({"epoch": epoch, "loss": 0.5})
    path = run.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    for _ in range(2):
        assert run.metrics() == [{"epoch": 1, "loss": 0.5}]
    assert caplog.text.count("cut off") == 1
    run.go_on(1, None)
    run.record({"epoch": 2, "loss": 0.25})
    assert [line["epoch"] for line in run.metrics()] == [1, 2]


def test_an_epoch_stands_once_and_in_order(tmp_path: Path) -> None:
    """Each network counts its own; a line that was damaged may have been removed."""
    run, cameras = create(tmp_path, "d", "cam"), ["camera_0", "camera_1"]
    good = [{"part": part, "epoch": epoch} for epoch in (1, 3) for part in cameras]
    run.write_metrics(good)
    assert run.metrics() == good
    for epoch in (0, 1, 3):
        run.write_metrics([*good, {"part": "camera_1", "epoch": epoch}])
        with pytest.raises(RunError, match=rf"Line 5 .*\(epoch {epoch} stands after epoch 3\)\. Remove that"):
            run.metrics()


def test_labels_that_were_cut_at_the_end_of_a_line_are_refused(tmp_path: Path) -> None:
    run = create(tmp_path, "d", "global")
    for epoch in (1, 2):
        write_labels(run.label_file(epoch), tabulate(split_of(9), Labels.of(np.arange(9) // 3)))
    run.write_metrics([{"epoch": 1, "images": 9}, {"epoch": 2}])  # version 0.1 counted no images
    for epoch in (1, 2):
        file = run.label_file(epoch)
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:6]))
    with pytest.raises(RunError, match=r"epoch_001\.csv holds 5 images, and there were 9"):
        read_labels(run.label_file(1))
    assert len(read_labels(run.label_file(2))) == 5
    (run.path / "metrics.jsonl").write_text("odd\n")
    assert len(read_labels(run.label_file(1))) == 5


def test_the_metrics_end_as_the_checkpoint_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = create(tmp_path, "d", "cam")
    lines = [{"part": part, "epoch": epoch} for epoch in (1, 2) for part in ("camera_0", "camera_1")]
    run.write_metrics(lines)
    run.go_on(1, json.dumps(lines[1]), "camera_1")
    assert run.metrics() == lines[:3]
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    run.go_on(2, json.dumps(lines[2]), "camera_0")
    assert path.read_bytes() == whole
    assert "Epoch 2 is put back" in caplog.text
    for odd in ("[" * 100_000, "{", "{}"):
        with pytest.raises(RunError, match="no figures of its epoch"):
            run.go_on(3, odd, "camera_0")


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[1]",
        b'{"loss": 1}',
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        b'{"epoch": 1, "loss": "x"}',
        b'{"epoch": 1, "kept": "9"}',
    ]
    + [b'{"epoch": 1, "quality": %s}' % odd for odd in (b"null", b'{"refined": {}}')]
    + [b'{"epoch": 1, "cameras": {"x": {}}}', b'{"epoch": 1, "seconds": 3}', b'{"epoch": 1, "loss": NaN}'],
)
def test_any_other_damage_of_the_metrics_is_named(tmp_path: Path, line: bytes) -> None:
    run = create(tmp_path, "d", "global")
    (run.path / "metrics.jsonl").write_bytes(b'{"epoch": 1}\n' + line + b'\n{"epoch": 3}\n')
    with pytest.raises(RunError, match=r"Line 2 of .*metrics\.jsonl is damaged"):
        run.metrics()


@pytest.mark.parametrize(
    "odd", ["mAP: x", "mAP: 7.5", "mAP: .nan", "rank_1: null", "thresholds: 5", "thresholds: [{name: a}]"]
)
def test_an_odd_value_of_an_evaluation_is_named(tmp_path: Path, odd: str) -> None:
    entry = {"mAP": 0.5, "rank_1": 0.5, "thresholds": [{"name": "best F1", "distance": 1.0}], "more": [1]}
    record_evaluations(tmp_path, [entry])
    assert read_evaluations(tmp_path)[0]["more"] == [1]
    write_json(tmp_path / "evaluation.json", {"evaluations": [entry | yaml.safe_load(odd)]})
    with pytest.raises(
        RunError, match=f"{odd.partition(':')[0]}.*Mend or remove it, and run icsr eval again"
    ):
        read_evaluations(tmp_path)


@pytest.mark.parametrize("checksum", [True, False])
def test_an_evaluation_ends_with_the_weights_it_is_of(tmp_path: Path, checksum: bool) -> None:
    weights = tmp_path / "best.safetensors"

    def train(number: int) -> str | None:
        save_file({"w": np.full(2, number)}, weights, {"sha256": str(number)} if checksum else None)
        return weights_digest(weights)

    marks = {"thresholds": [{"name": "best F1", "distance": 1.0}], "mAP": 0.5, "weights": weights.name}
    new = marks | {"dataset": "d", "weights_sha256": train(1)}
    record_evaluations(tmp_path, [new, marks | {"dataset": "before this was written down"}])
    assert image_thresholds(tmp_path, weights.name)["mAP"] == 0.5
    assert len(read_evaluations(tmp_path)) == 2
    train(2)
    assert [one["dataset"] for one in read_evaluations(tmp_path)] == ["before this was written down"]
    weights.unlink()
    assert len(read_evaluations(tmp_path)) == 2


def test_evaluations_at_once_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, value: object) -> None:
        time.sleep(0.01)
        write_json(path, value)

    monkeypatch.setattr(evaluation, "write_json", write)
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda n: record_evaluations(tmp_path, [{"dataset": str(n), "mAP": 0.5}]), range(8))
        assert list(found) == [None] * 8
    assert len(read_evaluations(tmp_path)) == 8


@pytest.mark.parametrize(
    "odd", ["seed: x", "seed: 1.5", "image: {height: -4}", "image: 3", "global: {model: 1}"]
)
def test_an_odd_value_of_the_settings_is_named(tmp_path: Path, odd: str) -> None:
    run = create(tmp_path, "d", "global")
    (run.path / "settings.yaml").write_text(f"method: icsr\nmine: [1]\n{odd}\n")
    with pytest.raises(RunError, match=f"{odd.partition(':')[0]}.*Mend its settings"):
        run.settings()


@pytest.mark.parametrize(
    "name",
    ["../x", " ", "x ", "/tmp/x", "a/b", ".hidden", "..", "a\\b", "a\x1b[2Jb", "", "x" * 201, "ü" * 101],
)
def test_a_name_is_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="plain name"):
        create(tmp_path / "runs", "d", "cam", name=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x" * 200, "ü" * 100])
def test_the_longest_name_there_is(tmp_path: Path, name: str) -> None:
    assert create(tmp_path, "d", "cam", name=name).path.name == name


def test_a_run_that_failed_before_its_first_epoch_does_not_block_its_name(tmp_path: Path) -> None:
    run = create(tmp_path, "d", "cam", name="mine")
    run.write_settings({})
    with pytest.raises(RunError, match="--resume"):
        create(tmp_path, "d", "cam", name="mine")  # it is running
    run.update_info(status="failed", reason="no memory")
    again = create(tmp_path, "d", "cam", name="mine")
    assert again.info()["status"] == "running"
    again.record({"part": "shared", "epoch": 1})
    again.update_info(status="failed")
    with pytest.raises(RunError, match="--resume"):
        create(tmp_path, "d", "cam", name="mine")


def test_a_run_that_is_just_being_begun_keeps_its_name(tmp_path: Path) -> None:
    with begin(tmp_path, "d", "cam", name="mine") as run:
        assert not clear_not_begun(run.path)
        with pytest.raises(RunError, match="already"):
            create(tmp_path, "d", "cam", name="mine")
    assert clear_not_begun(run.path)
    assert not run.path.exists()
    run.path.mkdir()
    (run.path / "notes.txt").touch()  # somebody's own
    assert not clear_not_begun(run.path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_said(tmp_path: Path, content: bytes) -> None:
    run = create(tmp_path, "d", "global")
    run.save_state("global", {"epoch": 1, "best": 0.5})
    assert run.load_state("global", "best") == {"epoch": 1, "best": 0.5}
    with pytest.raises(RunError, match="none of this stage"):
        run.load_state("global", "network")
    path = run.path / "checkpoints" / "global.pt"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"global\.pt cannot be read"):
        run.load_state("global")


def test_what_could_run_is_refused_without_a_hint_how_to_run_it(tmp_path: Path) -> None:
    run = create(tmp_path, "d", "global")
    path = run.path / "checkpoints" / "global.pt"
    path.parent.mkdir()
    torch.save({"epoch": subprocess.Popen}, path)
    with pytest.raises(RunError, match="holds more than numbers") as caught:
        run.load_state("global")
    assert "weights_only" not in str(caught.value)


def test_epochs_stand_in_their_order(tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "global", name="long")
    run.labels.mkdir(exist_ok=True)
    for epoch in (1, 2, 999, 1000, 1001):
        run.label_file(epoch).touch()
    for other in ("epoch_best.csv", "epoch_001 copy.csv"):
        (run.labels / other).touch()
    assert [epoch_of(file) for file in run.label_files()] == [1, 2, 999, 1000, 1001]
    assert [epoch_of(run.find_labels(epoch)) for epoch in (None, 2)] == [1001, 2]
    with pytest.raises(RunError, match="no labels of epoch 3; it has: 1, 2, 999, 1000, 1001"):
        run.find_labels(3)


def test_a_file_is_of_its_run_from_within_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create(tmp_path, "tiny", "global", name="own")
    run.labels.mkdir(exist_ok=True)
    monkeypatch.chdir(run.labels)
    found = run_of(Path("epoch_001.csv"))
    assert found is not None
    assert found.path.samefile(run.path)
    found = run_of(Path("../labels/epoch_001.csv"))
    assert found is not None
    assert found.path.samefile(run.path)
    monkeypatch.chdir(run.path)
    assert run_of(Path("../weights.pth.tar")) is None
    monkeypatch.chdir(tmp_path)
    assert run_of(Path("epoch_001.csv")) is None
