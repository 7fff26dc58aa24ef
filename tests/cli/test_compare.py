"""``icsr compare``: seeds become one row, what differs is shown, every format says the same."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path

import pytest
from html_pages import Page
from typer.testing import CliRunner, Result

from icsr_cli.cli.main import app
from icsr_cli.recipes import comparison
from icsr_cli.recipes.comparison import Comparison, Row, figures_of, said, text_of
from icsr_cli.runs import RunFolder, create
from icsr_cli.runs.evaluation import record_evaluations

MAPS = {"one": [0.7], "two": [0.8, 0.82, 0.9]}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """One run of one method, three seeds of another; what they were measured at."""
    for group, values in MAPS.items():
        for seed, value in enumerate(values):
            run = create(tmp_path, "tiny", "global", name=f"{group}-seed{seed}")
            clusterer = {"method": "dbscan", "eps": 0.5 if group == "one" else 0.6}
            refiners = [] if group == "one" else [{"method": "discard", "share": None}]
            own = {"clusterer": clusterer, "refiners": refiners, "model": {"arch": "a_b"}}
            run.write_settings({"dataset": "tiny", "seed": seed, "cam": {"epochs": seed}, "global": own})
            run.update_info(group=group)
            judged = {"refined": {"nmi": value, "pairwise_f": 0.5}}
            for epoch in (1, 2):
                run.record(
                    {
                        "epoch": epoch,
                        "loss": 2.0,
                        "clusters": 9 + (seed == 1),
                        "kept": 3,
                        "noise": 1,
                        "quality": judged,
                    }
                    | {"seconds": {"training": 3.0}}
                )
            plain = {"dataset": "tiny", "weights": "best.safetensors", "rerank": None, "debias": None}
            figures = {"mAP": value, "rank_1": value, "mINP": 0.1}
            other = plain | {"dataset": "shop", "rerank": "camera"} | figures
            record_evaluations(run.path, [plain | figures, *([other] if seed == 1 else [])])
            run.finish()
    return tmp_path


def compare(runs: Path, *words: str) -> Result:
    paths = sorted(str(path) for path in (runs / "tiny" / "global").iterdir())
    result = CliRunner().invoke(app, ["compare", *paths, *words])
    assert result.exit_code == 0, result.output
    return result


def test_seeds_become_mean_and_deviation(runs: Path) -> None:
    found = json.loads(compare(runs, "--format", "json").stdout)["rows"]
    assert [row["name"] for row in found] == ["one-seed0", "two"]
    assert found[1]["seeds"] == [0, 1, 2]
    assert found[1]["figures"]["mAP"] == {
        "mean": pytest.approx(0.84),
        "deviation": pytest.approx(statistics.stdev(MAPS["two"])),
        "values": MAPS["two"],
    }
    assert found[0]["figures"]["mAP"]["deviation"] is None
    assert found[0]["settings"] == {"global.clusterer.dbscan.eps": "0.5", "global.refiners": "none"}
    assert found[1]["settings"] == {"global.clusterer.dbscan.eps": "0.6", "global.refiners": "discard"}
    assert found[1]["figures"]["mAP (shop, camera)"]["values"] == [0.82]
    assert found[1]["figures"]["rank_1"]["values"] == MAPS["two"]  # as in every other JSON
    assert found[1]["figures"]["nmi"]["values"] == MAPS["two"]
    assert found[1]["figures"]["seconds"]["values"] == [6.0] * 3
    assert found[1]["figures"]["epochs"]["values"] == [2.0] * 3


def test_every_format_says_the_same(runs: Path) -> None:
    assert compare(runs, "--json").stdout == compare(runs, "-f", "json").stdout
    table = compare(runs).stdout
    assert "84.0 ± 5.3" in table
    assert "82.0 (of 1)" in table
    assert all(title in table for title in ("Rank-1 (shop, camera) %", "label NMI", "pairwise F"))
    assert "9.3 ± 0.6" in table  # a count has as many digits as its deviation
    markdown = compare(runs, "-f", "md").stdout.splitlines()
    assert len(markdown) == 4
    assert len({line.count(" | ") for line in markdown}) == 1
    assert "| 84.0 ± 5.3 |" in markdown[3]
    latex = compare(runs, "-f", "latex").stdout
    assert r"84.0 $\pm$ 5.3" in latex
    assert r"min\_samples" not in latex  # what is equal is not listed
    assert latex.count(r"\\") == 3
    rows = list(csv.DictReader(io.StringIO(compare(runs, "-f", "csv").stdout)))
    assert float(rows[1]["mAP"]) == pytest.approx(0.84)
    assert rows[0]["mAP deviation"] == ""
    assert (rows[1]["seeds"], rows[1]["mAP seeds"], rows[1]["mAP (shop, camera) seeds"]) == ("3", "3", "1")
    assert rows[0]["mAP (shop, camera) seeds"] == "0"


def test_any_number_of_runs_fits_80_columns(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        run = create(runs, "tiny", "global", name=f"other{number}")
        run.write_settings({"dataset": "tiny", "seed": 0, "global": {"iters": number}})
        run.record({"epoch": 1, "loss": 2.0, "kept": 3, "seconds": {"training": 3.0}})
    monkeypatch.setenv("COLUMNS", "80")
    lines = compare(runs).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    assert [words.count(f"other{number}") for number in range(7)] == [2] * 7


def test_latex_reads_no_name_as_its_own(runs: Path) -> None:
    place = runs / "tiny" / "global" / "one-seed0"
    place.rename(place.with_name(r"[a{b$c^d~e\f"))
    latex = compare(runs, "-f", "latex").stdout
    assert r"{[}a\{b\$c\textasciicircum{}d\textasciitilde{}e\textbackslash{}f & 1 &" in latex
    assert r"84.0 $\pm$ 5.3" in latex


def test_labels_that_nobody_could_judge_have_no_quality(runs: Path) -> None:
    run = RunFolder(runs / "tiny" / "global" / "one-seed0")
    run.record({"epoch": 3, "quality": {"global": {"nmi": 0.5, "pairwise_f": 0.5}}})
    one, two = json.loads(compare(runs, "-f", "json").stdout)["rows"]
    assert ("nmi" in one["figures"], "nmi" in two["figures"]) == (False, True)


def test_the_page_stands_alone(runs: Path) -> None:
    said = compare(runs, "--html", str(runs / "page.html")).stderr
    assert "".join(said.split()).endswith("page.html")
    page = Page((runs / "page.html").read_text())
    page.check()
    assert {"figures", "settings", "curves"} <= set(page.ids)
    assert "84.0 ± 5.3" in page.text


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        (
            "pairs",
            {"file": "a.csv", "sha256": "12345678", "same": 1, "different": 0},
            ["none", "a.csv (12345678)"],
        ),
        ("images", "87654321", ["none", "training images (87654321)"]),
        ("plugins", [["my.py", "abcdefghi"]], ["none", "my.py (abcdefgh)"]),
        ("local", "local.csv", ["none", "local.csv (None)"]),
        ("cameras", [0, 2], ["all", "0, 2"]),
    ],
)
def test_what_was_given_beside_the_settings_makes_a_row_of_its_own(
    key: str, values: object, said: list[str], runs: Path
) -> None:
    RunFolder(runs / "tiny" / "global" / "two-seed1").update_info(**{key: values})
    rows = json.loads(compare(runs, "-f", "json").stdout)["rows"]
    assert [row["seeds"] for row in rows] == [[0], [0, 2], [1]]
    assert [row["settings"][f"given.{key}"] for row in rows[1:]] == said


def test_seeds_that_each_begin_from_their_own_cam_run_are_one_row(runs: Path) -> None:
    for seed in range(3):
        cam = create(runs, "tiny", "cam", name=f"two-seed{seed}")
        cam.write_settings({"dataset": "tiny", "seed": seed, "cam": {"epochs": 5}})
        own = RunFolder(runs / "tiny" / "global" / f"two-seed{seed}")
        own.update_info(after=cam.path.name, init="cam", local=f"{cam.path}/labels/local.csv")
        settings = own.settings()
        settings["global"]["model"]["weights"] = f"{cam.path}/last.safetensors"
        own.write_settings(settings)
    rows = json.loads(compare(runs, "-f", "json").stdout)["rows"]
    assert [row["seeds"] for row in rows] == [[0], [0, 1, 2]]
    cam.write_settings({"dataset": "tiny", "seed": 2, "cam": {"epochs": 6}})
    rows = json.loads(compare(runs, "-f", "json").stdout)["rows"]
    assert [(row["seeds"], row["settings"].get("cam.epochs")) for row in rows[1:]] == [
        ([0, 1], "5"),
        ([2], "6"),
    ]


def test_figures_of_an_epoch_that_the_test_set_chose_stand_apart(runs: Path) -> None:
    one = RunFolder(runs / "tiny/global/one-seed0")
    one.write_settings({**one.settings(), "select": "test-map"})
    found, other = json.loads(compare(runs, "--format", "json").stdout)["rows"]
    assert "mAP" not in found["figures"]
    assert found["figures"]["mAP (epoch chosen by the test set)"]["values"] == MAPS["one"]
    assert other["figures"]["mAP"]["values"] == MAPS["two"]


def test_a_seed_that_was_run_again_is_no_second_seed(runs: Path) -> None:
    """Three runs of two seeds: the deviation is that of two values."""
    again = RunFolder(runs / "tiny" / "global" / "two-seed2")
    again.write_settings(again.settings() | {"seed": 1})
    row = json.loads(compare(runs, "-f", "json").stdout)["rows"][1]
    assert (row["seeds"], len(row["runs"])) == ([0, 1], 3)
    assert row["figures"]["mAP"]["values"] == pytest.approx([0.8, 0.86])
    assert row["figures"]["pairwise_f"] == {"mean": 0.5, "deviation": 0.0, "values": [0.5, 0.5]}
    assert next(csv.DictReader(io.StringIO(compare(runs, "-f", "csv").stdout)))["seeds"] == "1"
    assert "(of" not in compare(runs).stdout.split("shop")[0]


def test_without_names_the_runs_like_the_newest(runs: Path) -> None:
    result = CliRunner().invoke(app, ["compare", "--runs", str(runs), "-f", "json"])
    assert [row["name"] for row in json.loads(result.stdout)["rows"]] == ["one-seed0", "two"]


def test_a_damaged_run_that_nobody_named_does_not_hide_the_others(runs: Path) -> None:
    (runs / "tiny" / "global" / "two-seed1" / "settings.yaml").write_text("seed: [1")
    (runs / "tiny" / "global" / "two-seed2" / "evaluation.json").write_text("{")
    result = CliRunner().invoke(app, ["compare", "--runs", str(runs), "-f", "json"])
    assert result.exit_code == 0, result.output
    assert [row["seeds"] for row in json.loads(result.stdout)["rows"]] == [[0], [0]]
    assert "".join(result.stderr.split()).count("Therunisleftout.") == 2


def test_what_cannot_be_compared(runs: Path) -> None:
    path = str(runs / "tiny" / "global" / "one-seed0")
    twice = CliRunner().invoke(app, ["compare", path, path])
    assert twice.exit_code == 2
    assert "named twice" in twice.stderr
    both = CliRunner().invoke(app, ["compare", path, "--json", "-f", "md"])
    assert both.exit_code == 2
    assert "give one of them" in both.stderr
    nowhere = CliRunner().invoke(app, ["compare", str(runs)])
    assert nowhere.exit_code == 1
    assert "is no run folder" in nowhere.stderr


def test_kept_is_the_share_of_all_images(tmp_path: Path) -> None:
    """Some refiners leave images out, some bring noise in: kept, noise and thrown out need not be all."""
    run = create(tmp_path, "tiny", "global", name="one")
    run.write_settings({"dataset": "tiny", "seed": 1, "global": {}})
    run.record(
        {"epoch": 1, "loss": 2.0, "images": 10, "clusters": 2, "kept": 4, "noise": 1, "single_camera": 5}
    )
    run.finish()
    found = CliRunner().invoke(app, ["compare", str(run.path), "--format", "json"])
    assert found.exit_code == 0, found.output
    [row] = json.loads(found.stdout)["rows"]
    assert row["figures"]["kept"]["mean"] == pytest.approx(0.4)


def test_a_method_that_is_chosen_twice_is_no_seed(tmp_path: Path) -> None:
    for seed, k in enumerate((5, 7)):
        run = create(tmp_path, "tiny", "global", name=f"run{seed}")
        refiners = [{"method": "split", "k": k}, {"method": "discard"}, {"method": "split", "k": 9}]
        run.write_settings({"dataset": "tiny", "seed": seed, "global": {"refiners": refiners}})
        run.finish()
    found = json.loads(compare(tmp_path, "--json").stdout)
    assert [row["settings"]["global.refiners.0.split.k"] for row in found["rows"]] == ["5", "7"]


def test_a_setting_that_an_older_release_did_not_know_is_named(tmp_path: Path) -> None:
    runs = []
    for name, own in (("old", {"eps": 0.5}), ("new", {"eps": 0.5, "least": 2})):
        run = create(tmp_path, "tiny", "global", name=name)
        refiners = [{"method": "split", "k": 9}] if name == "new" else []
        clusterer = {"method": "dbscan", **own}
        run.write_settings({"seed": 1, "global": {"clusterer": clusterer, "refiners": refiners}})
        runs.append(run)
    differing = comparison.compare(runs).differing
    assert sorted(differing) == ["global.clusterer.dbscan.least", "global.refiners"]


def test_networks_of_cameras_count_by_their_own_last_epoch(tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "cam", name="one")
    run.write_settings({"dataset": "tiny", "seed": 1, "cam": {}})
    for part, epoch, clusters in (("camera_0", 1, 10), ("camera_0", 2, 20), ("camera_1", 1, 7)):
        run.record({"part": part, "epoch": epoch, "loss": 2.0, "clusters": clusters})
    run.finish()
    found = CliRunner().invoke(app, ["compare", str(run.path), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["rows"][0]["figures"]["clusters"]["mean"] == 27


def test_a_run_of_estimated_thresholds_has_no_retrieval(tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "global", name="one")
    run.write_settings({"seed": 1})
    estimated = {"dataset": "tiny", "weights": "best.safetensors", "estimated": True, "thresholds": []}
    record_evaluations(run.path, [estimated])
    assert "mAP" not in comparison.compare([run]).figures


def test_how_figures_and_settings_are_written(tmp_path: Path) -> None:
    given = (None, True, False, 3, [1, 2], [], {"a": True})
    assert [said(one) for one in given] == ["none", "yes", "no", "3", "1, 2", "none", "a yes"]
    rows = tuple(Row(name, (), (1,), own, {}, ()) for name, own in (("a", {"eps": "1"}), ("b", {})))
    assert Comparison(rows, ("eps",), ()).set_by_row() == [["eps", "1", "-"]]
    figures = {"clusters": (1234.0,), "nmi (mean of cameras)": (0.7,)}
    row = Row("a", (), (1,), {}, figures, ())
    assert [text_of(row, name) for name in figures] == ["1,234", "0.700"]
    assert "loss" not in figures_of([{"epoch": 1, "loss": float("nan")}])
    runs = [create(tmp_path, "tiny", stage, name="one") for stage in ("cam", "global")]
    for run in runs:
        run.write_settings({"seed": 1})
    assert comparison.compare(runs).names == [str(run.path) for run in runs]
