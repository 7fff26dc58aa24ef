"""search, export, doctor and eval --per-camera as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from in_process import icsr
from PIL import Image

from icsr_cli import datasets
from icsr_cli.metrics import rank
from icsr_cli.models import build, open_model, read_metadata, save_weights
from icsr_cli.runs import create

SIZE = {"height": "32", "width": "16"}
PATTERN = "{id}_c{camera}s*.jpg"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished global run of the tiny data set, its network untrained."""
    root = tmp_path_factory.mktemp("runs")
    run = create(root, "tiny", "global", name="a")
    save_weights(build("resnet_small", seed=1), run.path / "best.safetensors", SIZE)
    run.write_settings({"dataset": "tiny"})
    run.write_metrics([{"epoch": 1, "loss": 1.0}])
    run.finish()
    return root


@pytest.fixture(scope="module")
def gallery(tiny_root: Path) -> Path:
    return datasets.load("tiny", tiny_root).root / "bounding_box_test"


@pytest.fixture(scope="module")
def query(tiny_root: Path) -> Path:
    split = datasets.load("tiny", tiny_root).splits["query"]
    return split.root / split.records[0].path


@pytest.mark.parametrize("command", ["search", "export", "doctor"])
def test_help(command: str) -> None:
    found = icsr(command, "--help")
    assert found.exit_code == 0
    assert "Usage" in found.output


def test_search_prints_a_table_and_saves_a_picture(
    runs: Path, gallery: Path, query: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = icsr("search", query, "--gallery", gallery, "--top", 4, "--runs", runs)
    assert found.exit_code == 0, found.output
    assert "best.safetensors" in found.stderr
    assert "Written to ranking.png" in found.stdout
    again = icsr("search", query, query, "-g", gallery, "--runs", runs, "--pattern", PATTERN)
    assert "Written to ranking-2.png" in again.stdout  # the first one is still there
    assert "known before" in again.stdout
    assert "identity" in again.stdout
    with Image.open("ranking.png") as one, Image.open("ranking-2.png") as two:
        assert one.width < two.width
        assert one.height < two.height


def test_answers_that_are_too_far_are_no_match(
    runs: Path, gallery: Path, query: Path, tmp_path: Path
) -> None:
    options = ["-g", gallery, "--runs", runs, "--json"]
    whole = json.loads(icsr("search", query, *options).stdout)["queries"][0]["matches"]
    far = whole[2]["distance"]
    found = json.loads(icsr("search", query, *options, "--max-distance", far).stdout)["queries"][0]["matches"]
    assert found == [match for match in whole if match["distance"] <= far]
    nearer = whole[0]["distance"] / 2
    assert nearer > 0, "the picture itself is not among the crops"
    none = icsr("search", query, *options[:-1], "--max-distance", nearer, "--out", tmp_path / "ranking.png")
    assert none.exit_code == 0, none.output
    assert "no match" in none.stdout


def test_answers_are_shown_though_the_picture_is_too_large(
    runs: Path, gallery: Path, query: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icsr_cli.reports.ranking_picture._MOST", {"WEBP": 99})
    found = icsr("search", query, "-g", gallery, "--runs", runs, "--out", tmp_path / "a.webp")
    assert found.exit_code == 2
    assert "images compared" in found.stdout
    assert "WEBP holds 99 a side" in " ".join(found.stderr.split())
    told = icsr("search", query, "-g", gallery, "--runs", runs, "--out", tmp_path / "a.webp", "--json")
    assert (told.exit_code, told.stdout) == (2, "")  # JSON would name a picture that is not there


def test_search_as_json(
    runs: Path, gallery: Path, query: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--pattern", PATTERN, "--across-cameras", "--top", 5, "--json", "--no-cache"]
    network = runs / "tiny" / "global" / "a" / "best.safetensors"
    found = icsr("search", query, "-g", gallery, "-n", network, *options)
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["picture"] is None
    assert answer["cache"] is None
    matches = answer["queries"][0]["matches"]
    assert len(matches) == 5
    assert answer["queries"][0]["camera"] not in {match["camera"] for match in matches}
    assert all((gallery / match["path"]).is_file() for match in matches)
    distances = [match["distance"] for match in matches]
    assert distances == sorted(distances)
    assert not list(tmp_path.iterdir())
    drawn = icsr("search", query, "-g", gallery, "-n", network, *options, "--out", tmp_path / "x.jpg")
    assert json.loads(drawn.stdout)["picture"] == str(tmp_path / "x.jpg")


def test_names_with_brackets_are_shown_as_they_are(
    runs: Path, query: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "[bold]"
    (folder / "a[").mkdir(parents=True)
    for name in ("[red]a.png", "a[/b].png"):  # marks of rich, the second one closing nothing
        Image.new("RGB", (16, 32), "red").save(folder / name)
    (folder / "broken.png").write_text("x")
    found = icsr("search", query, folder / "a[/b].png", "-g", folder, "--runs", runs)
    assert found.exit_code == 0, found.output
    assert "[red]a.png" in found.stdout
    assert "a[/b].png" in found.stdout
    assert "1 of the gallery's images cannot be read, such as broken.png: not an image" in found.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--gallery", "{empty}"], 1, "There is no image in the gallery"),
        (["--gallery", "nowhere"], 1, "does not exist"),
        (["--gallery", "{gallery}", "--out", "a.gif"], 2, ".png"),
        (["--gallery", "{gallery}", "-n", "nowhere.pth", "--out", "{query}"], 2, "which is read here"),
        (["--gallery", "{gallery}", "-n", "nowhere.pth", "--out", "{answer}"], 2, "which is read here"),
        (["--gallery", "nowhere", "--out", "{answer}"], 1, "does not exist"),
        (["--gallery", "{gallery}", "--across-cameras"], 2, "--pattern"),
        (["--gallery", "{gallery}", "--network", "nowhere.pth"], 1, "nowhere.pth"),
        (["--gallery", "{gallery}", "--network", "{damaged}"], 1, "not a whole safetensors file"),
        (["--gallery", "{gallery}", "--runs", "{empty}"], 1, "icsr train"),
        (["--gallery", "{gallery}", "--pattern", "{{name}}.jpg"], 2, "{camera}"),
    ],
)
def test_search_refuses_with_one_message(
    options: list[str], code: int, words: str, runs: Path, gallery: Path, query: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.safetensors").write_bytes(b"12345678")
    places = {"empty": tmp_path / "empty", "damaged": tmp_path / "damaged.safetensors", "gallery": gallery}
    places |= {"query": query, "answer": next(gallery.glob("*.jpg"))}
    found = icsr("search", query, "--runs", runs, *(option.format(**places) for option in options))
    assert found.exit_code == code, found.output
    assert words in " ".join(found.stderr.split())
    assert "Traceback" not in found.output


def test_a_query_that_is_no_picture(runs: Path, gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("Dear reader")
    for name in ("letter.jpg", "missing.jpg"):
        found = icsr("search", tmp_path / name, "-g", gallery, "--runs", runs)
        assert found.exit_code == 1
        assert name in found.stderr


def test_export_onnx_checks_with_real_crops(runs: Path, tiny_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "person.onnx"
    found = icsr("export", "--out", out, "--runs", runs, "--data-root", tiny_root, "--json")
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["path"] == str(out)
    assert answer["cosine"] > 0.9999
    assert answer["crops"] > 5
    assert (answer["height"], answer["width"]) == (32, 16)


def test_export_safetensors(
    runs: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = runs / "tiny" / "global" / "a"
    found = icsr("export", run, "--format", "safetensors", "--data-root", tiny_root)
    assert found.exit_code == 0, found.output
    assert "Model card: resnet_small_32x16.md" in found.stdout
    again, before = open_model("resnet_small_32x16.safetensors"), open_model(run / "best.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), before.parameters(), strict=True))
    assert "no real person" in Path("resnet_small_32x16.md").read_text()


def test_export_hands_on_what_still_holds(
    runs: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, places = runs / "tiny" / "global" / "a", ("--data-root", tiny_root)
    assert icsr("eval", run, *places).exit_code == 0
    for out, given in (("own.safetensors", ()), ("other.safetensors", ("--height", 48))):
        assert icsr("export", run, "--out", out, *given, *places).exit_code == 0
    assert icsr("export", "own.safetensors", "--out", "again.safetensors").exit_code == 0
    own, other, again = (read_metadata(f"{name}.safetensors") for name in ("own", "other", "again"))
    assert "best F1" in own["thresholds"]
    assert "thresholds" not in other  # they are distances at the size of the run
    assert all(again[key] == own[key] for key in ("dataset", "licence", "thresholds"))
    assert own["licence"] in Path("again.md").read_text()
    assert "best F1" in Path("again.md").read_text()
    smaller = icsr("export", "own.safetensors", "--out", "smaller.safetensors", "--height", 48)
    assert smaller.exit_code == 0, smaller.output
    assert "thresholds" not in read_metadata("smaller.safetensors")
    for damaged in ("{", "5", own["thresholds"].replace("0.", "7.")):
        save_weights(open_model("own.safetensors"), Path("odd.safetensors"), own | {"thresholds": damaged})
        refused = icsr("export", "odd.safetensors", "--out", "more.safetensors")
        assert (refused.exit_code, "thresholds are damaged" in refused.stderr) == (1, True)
    Path("notes.md").write_text("mine: open_model(it)")
    refused = icsr("export", run, "--out", "notes.safetensors", *places)
    assert (refused.exit_code, "would take the place" in " ".join(refused.stderr.split())) == (2, True)
    assert (Path("notes.md").read_text(), Path("notes.safetensors").exists()) == (
        "mine: open_model(it)",
        False,
    )


def test_export_of_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "global", name="going")
    run.write_settings({"dataset": "tiny"})
    nothing = icsr("export", run.path, "--out", tmp_path / "x.safetensors")
    assert nothing.exit_code == 1
    assert "no epoch is finished" in nothing.stderr
    save_weights(build("resnet_small", seed=1), run.path / "last.safetensors", SIZE)
    run.write_metrics([{"epoch": 1, "loss": 1.0}])
    found = icsr("export", run.path, "--out", tmp_path / "x.safetensors")
    assert found.exit_code == 0
    assert "not finished (running)" in found.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "x.bin"], "must end in .onnx or .safetensors"),
        (["--out", "x.onnx", "--format", "safetensors"], "must end in .safetensors, got x.onnx"),
        (["--out", "x.safetensors", "--input", "pixels"], "--format onnx"),
        (["--resize-in-graph", "--input", "normalised"], "leave out --input"),
        (["--out", "{weights}"], "which is read here"),
        (["--format", "tflite"], "onnx"),
    ],
)
def test_export_refuses(options: list[str], words: str, runs: Path) -> None:
    weights = runs / "tiny" / "global" / "a" / "best.safetensors"
    before = weights.read_bytes()
    found = icsr("export", "--runs", runs, *(option.format(weights=weights) for option in options))
    assert found.exit_code == 2, found.output
    assert words in " ".join(found.stderr.split())
    assert weights.read_bytes() == before


def test_doctor(tmp_path: Path) -> None:
    places = ["--data-root", tmp_path, "--runs", tmp_path]
    table = icsr("doctor", *places)
    assert table.exit_code == 0, table.output
    for words in ("torch", "numba threads", "memory", "ImageNet weights"):
        assert words in table.stdout
    answer = json.loads(icsr("doctor", *places, "--json").stdout)
    assert answer["healthy"] is True
    assert {"libraries", "machine", "folders", "weights", "findings"} <= answer.keys()


def test_doctor_fails_where_something_needed_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = icsr("doctor", "--data-root", tmp_path / "file", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["healthy"] is False
    table = icsr("doctor", "--data-root", tmp_path / "file")
    assert table.exit_code == 1
    assert "Has to be mended" in table.stdout


def test_eval_per_camera(runs: Path, tiny_root: Path) -> None:
    from icsr_cli.features import extract
    from icsr_cli.images.decode import decode_resized

    options = ["-d", "tiny", "--data-root", tiny_root, "--runs", runs, "--per-camera"]
    found = icsr("eval", *options, "--rerank", "--json")
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    data = datasets.load("tiny", tiny_root)
    rows = answer["per_camera"]["plain"]
    pairs = {(row["query_camera"], row["gallery_camera"]): row for row in rows}
    assert len(pairs) == len(rows) == 6  # 3 cameras, none with itself
    assert len(answer["per_camera"]["reranked"]) == 6
    # The obvious way: a gallery of one camera alone.
    network = open_model(runs / "tiny" / "global" / "a" / "best.safetensors")
    splits = [data.splits[name] for name in ("query", "gallery")]
    pixels = [
        torch.stack(
            [torch.tensor(decode_resized(split.root / record.path, 32, 16)) for record in split.records]
        )
        for split in splits
    ]
    features = [extract(network, images) for images in pixels]
    query, gallery = splits
    mine, other = query.cameras == 0, gallery.cameras == 2
    alone = rank(
        features[0][mine],
        features[1][other],
        query.identities[mine],
        gallery.identities[other],
        query.cameras[mine],
        gallery.cameras[other],
    )
    row = pairs[data.camera_names[0], data.camera_names[2]]
    assert row["mAP"] == pytest.approx(alone.mAP)
    assert row["rank_1"] == pytest.approx(alone.cmc[0])
    assert row["queries"] == alone.n_queries
    table = icsr("eval", *options)
    assert "mAP by camera" in table.stdout
    assert "Rank-1 by camera" in table.stdout
    assert "per_camera" not in json.loads(icsr("eval", *options[:-1], "--json").stdout)


def test_many_cameras_are_split_over_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from icsr_cli.cli.evaluate import _show_cameras

    some = rank(torch.eye(2), torch.eye(2), [1, 2], [1, 2], [0, 0], [1, 1])
    rankings = {(query, gallery): some for query in range(15) for gallery in range(15) if query != gallery}
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"camera{number}" for number in range(15)]
    _show_cameras("features", rankings, names)
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split() for line in lines if line.lstrip().startswith("query ")]
    assert len(heads) == 6
    assert [name for head in heads[:3] for name in head[1:]] == names
    assert max(map(len, lines)) <= 80
    assert all(sum(line.split()[:1] == [name] for line in lines) == 6 for name in names)
