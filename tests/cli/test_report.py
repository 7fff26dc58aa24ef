"""``icsr report`` and ``icsr labels inspect --html`` as a user runs them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from html_pages import Page
from in_process import icsr
from tiny_world import TINY

SETTINGS = [word for assignment in TINY for word in ("--set", assignment)]
SECTIONS = {"training", "labels", "retrieval", "rankings", "map", "time", "settings", "environment"}


@pytest.fixture(scope="module")
def root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    for stage in ("cam", "global"):
        name = ("--data-root", tiny_root, "--runs", runs, "--name", "one", "-d", "tiny", "--quiet")
        done = icsr("train", stage, *SETTINGS, *name)
        assert done.exit_code == 0, done.output
    return runs


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Path:
    """A copy of the global run, to spoil."""
    shutil.copytree(root, tmp_path / "runs")
    return tmp_path / "runs" / "tiny" / "global" / "one"


def page_of(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    page.check()
    return page


def test_a_report_of_the_newest_run(root: Path, tiny_root: Path) -> None:
    places = ("--data-root", tiny_root, "--runs", root)
    result = icsr("report", *places, "--rankings", 2, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    file = root / "tiny" / "global" / "one" / "report.html"
    assert found["report"] == str(file)
    assert found["absent"] == {}
    measured = json.loads(icsr("eval", "-d", "tiny", "--json", *places).stdout)["plain"]
    assert found["retrieval"] == pytest.approx(measured)
    page = page_of(file)
    assert set(page.ids) >= SECTIONS
    assert len(page.images) == 3 * 2 * 11
    assert page.classes.count("dots") >= 3 + 3
    assert f"{100 * measured['mAP']:.1f}%" in page.text
    for words in ("finished", "Silhouette", "refined", "dbscan", "extraction", "scikit-learn"):
        assert words in page.text
    assert not list(file.parent.glob(".*.tmp"))


def test_a_report_of_a_cam_run(root: Path, tiny_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    result = icsr(
        "report", root / "tiny/cam/one", "--data-root", tiny_root, "--out", out, "--no-map", "--rankings", 0
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    page = page_of(out)
    assert set(page.ids) >= SECTIONS
    for words in ("Silhouette per camera", "camera 2", "(--no-map)", "(--rankings 0)", "local"):
        assert words in page.text


def test_cameras_with_networks_of_their_own_have_no_retrieval(
    root: Path, tiny_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "one"
    shutil.copytree(root / "tiny/cam/one", run)
    (run / "last.safetensors").rename(run / "camera_0.safetensors")
    result = icsr("report", run, "--data-root", tiny_root)
    assert result.exit_code == 0, result.output
    assert "no network of all cameras" in page_of(run / "report.html").text


def test_a_report_where_the_data_set_is_gone(run: Path, tmp_path: Path) -> None:
    result = icsr("report", run, "--data-root", tmp_path / "nowhere")
    assert result.exit_code == 0, result.output
    page = page_of(run / "report.html")
    assert page.images == []
    assert "not prepared" in page.text
    assert "not prepared" in " ".join(result.stderr.split())
    assert "Silhouette" in page.text


def test_a_report_where_the_images_are_gone(run: Path, tiny_root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_root, data)
    shutil.rmtree(data / "tiny" / "pixels")
    for image in [*data.rglob("*.png"), *data.rglob("*.jpg")]:
        image.unlink()
    result = icsr("report", run, "--data-root", data)
    assert result.exit_code == 0, result.output
    page = page_of(run / "report.html")
    assert page.images == []
    assert "cannot be read" in page.text


def test_a_report_of_a_run_that_has_just_begun(run: Path, tiny_root: Path) -> None:
    for name in ("metrics.jsonl", "best.safetensors", "last.safetensors"):
        (run / name).unlink()
    shutil.rmtree(run / "labels")
    about = json.loads((run / "run.json").read_text())
    del about["ended"]
    (run / "run.json").write_text(json.dumps(about | {"status": "running"}))
    result = icsr("report", run, "--data-root", tiny_root)
    assert result.exit_code == 0, result.output
    page = page_of(run / "report.html")
    for words in ("still going", "Epoch 0 of 3", "No epoch is finished yet", "no labels yet"):
        assert words in page.text


def test_a_damaged_network_is_a_note(run: Path, tiny_root: Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        (run / name).write_bytes(b"no weights")
    result = icsr("report", run, "--data-root", tiny_root)
    assert result.exit_code == 0, result.output
    assert "safetensors" in page_of(run / "report.html").text


def test_a_fault_leaves_the_old_page(run: Path, tiny_root: Path) -> None:
    (run / "report.html").write_text("old")
    (run / "settings.yaml").write_text("[")
    result = icsr("report", run, "--data-root", tiny_root)
    assert result.exit_code != 0
    assert "Traceback" not in result.output
    assert (run / "report.html").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "/nowhere"], "/nowhere is no run folder"),
        (["report", "--runs", "/nowhere"], "Make one with"),
        (["report", "--rankings", "-1"], "rankings"),
        (["labels", "inspect", "--runs", "RUNS", "-d", ""], "-d is empty"),
        (["labels", "inspect", "--runs", "RUNS", "-d", "*"], "There is no cam run of *"),
        (["labels", "inspect", "RUNS/tiny/global/one", "-d", "shop"], "is a run of tiny, not of shop"),
        (["labels", "review", "RUNS/tiny/global/one", "-d", "shop"], "is a run of tiny, not of shop"),
        (["report", "RUNS/tiny/global/one", "RUNS/tiny/cam/one"], "of one run, and 2 are named"),
    ],
)
def test_wrong_use_gets_one_message(root: Path, arguments: list[str], words: str) -> None:
    result = icsr(*(argument.replace("RUNS", str(root)) for argument in arguments))
    assert result.exit_code != 0
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_labels_as_a_page(root: Path, tiny_root: Path, tmp_path: Path) -> None:
    places = ("--data-root", tiny_root, "--runs", root)
    overview = json.loads(icsr("labels", "inspect", "--json", "--runs", root).stdout)
    largest = overview["largest_clusters"][0]
    out = tmp_path / "page.html"
    for options, count in (
        ([], None),
        (["--cluster", largest["cluster"]], largest["images"]),
        (["--camera", 1], overview["cameras"][1]["images"]),
        (["--discarded"], overview["overview"]["thrown_out"]),
    ):
        result = icsr("labels", "inspect", *options, "--html", out, *places)
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == str(out)
        page = page_of(out)
        assert count is None or len(page.images) == count
        assert count is not None or f"cluster-{largest['cluster']}" in page.ids
    found = json.loads(icsr("labels", "inspect", "--html", out, "--json", *places).stdout)
    assert found["html"] == str(out)


def test_what_moved_as_a_page(root: Path, tiny_root: Path, tmp_path: Path) -> None:
    places = ("--data-root", tiny_root, "--runs", root)
    out = tmp_path / "page.html"
    result = icsr("labels", "inspect", "--compare", 1, "--html", out, *places)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    page = page_of(out)
    for words in ("From epoch 1 to epoch 3", "epoch_001.csv", "epoch_003.csv"):
        assert words in page.text
    assert "one and the same epoch" in icsr("labels", "inspect", "--compare", 3, *places).stdout
    changes = json.loads(icsr("labels", "inspect", "--compare", 1, "--json", *places).stdout)
    assert f"{len(changes['moved'])} moved (" in page.text
    assert bool(changes["moved"]) <= bool(page.images)
    found = json.loads(icsr("labels", "inspect", "--compare", 1, "--html", out, "--json", *places).stdout)
    assert found == {"labels": str(root / "tiny/global/one/labels/epoch_003.csv"), "html": str(out)}
    alone = root / "tiny/global/one/labels/epoch_003.csv"
    result = icsr("labels", "inspect", alone, "--compare", 1, "--html", out, *places)
    assert result.exit_code == 2
    assert "--compare goes with a run folder" in " ".join(result.stderr.split())


def test_labels_of_the_cam_stage_as_a_page(root: Path, tiny_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = icsr("labels", "inspect", root / "tiny/cam/one", "--data-root", tiny_root, "--html", out)
    assert result.exit_code == 0, result.output
    page = page_of(out)
    assert page.images
    assert re.search(r"\b1 camera\b", page.text)  # a local cluster lies under one camera
    assert not re.search(r"\b[23] cameras ·", page.text)
    assert "Largest clusters" in page.text
    assert "Most mixed" not in page.text


def test_local_clusters_that_are_numbered_camera_by_camera_are_told_apart(tmp_path: Path) -> None:
    """One number under two cameras is two clusters: in the tables, and on the page."""
    rows = [
        f"c{camera}_{n}.jpg,{camera},,{n // 2},{n // 2},{n // 2},kept" for camera in (0, 1) for n in range(4)
    ]
    file, out = tmp_path / "local.csv", tmp_path / "page.html"
    head = "path,camera,identity,cluster,local_cluster,label,state"
    file.write_text("\n".join([head, *rows, ""]))
    found = json.loads(icsr("labels", "inspect", file, "--json").stdout)
    assert found["overview"]["clusters"] == 4
    one = icsr("labels", "inspect", file, "--cluster", 3)
    assert re.findall(r"c\d_\d.jpg", one.stdout) == ["c1_2.jpg", "c1_3.jpg"]
    assert icsr("labels", "inspect", file, "--cluster", 3, "--html", out).exit_code == 0
    assert "c1_3.jpg" in out.read_text()


def test_a_label_file_alone_needs_the_name_of_its_data_set(
    root: Path, tiny_root: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "labels.csv", tmp_path / "page.html"
    shutil.copy(root / "tiny/global/one/labels/epoch_003.csv", file)
    result = icsr("labels", "inspect", file, "--html", out, "--data-root", tiny_root)
    assert result.exit_code == 0, result.output
    assert page_of(out).images == []
    assert "name the data set" in page_of(out).text
    result = icsr("labels", "inspect", file, "--html", out, "--data-root", tiny_root, "-d", "tiny")
    assert result.exit_code == 0, result.output
    assert page_of(out).images


def test_labels_whose_data_set_is_gone(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = icsr("labels", "inspect", run, "--html", out, "--data-root", tmp_path / "nowhere")
    assert result.exit_code == 0, result.output
    assert "There are no pictures" in page_of(out).text
    assert "gone" in page_of(out).classes


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--cluster", "999"], 1, "no cluster 999"),
        (["--camera", "9"], 1, "no camera 9"),
        (["--epoch", "9"], 1, "no labels of epoch 9"),
        (["--compare", "9"], 1, "no labels of epoch 9"),
        (["--compare", "1", "--camera", "1"], 2, "Give one of"),
    ],
)
def test_a_page_of_what_is_not_there(
    run: Path, tiny_root: Path, tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    out = tmp_path / "page.html"
    result = icsr("labels", "inspect", run, *options, "--html", out, "--data-root", tiny_root)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())
    assert not out.exists()


def test_a_run_without_labels_has_no_label_page(run: Path, tiny_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "labels")
    result = icsr("labels", "inspect", run, "--html", tmp_path / "page.html", "--data-root", tiny_root)
    assert result.exit_code == 1
    assert "no labels yet" in " ".join(result.stderr.split())
