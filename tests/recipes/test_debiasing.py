"""Statistics of cameras in a model file: written by export, read back, and used by eval, search and embed."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from icsr_cli import datasets
from icsr_cli.cli.main import app
from icsr_cli.datasets import index
from icsr_cli.distances import CameraStatistics, normalise_cameras
from icsr_cli.errors import ModelError, UsageError
from icsr_cli.models import build, open_model, read_metadata, save_weights
from icsr_cli.progress import Progress
from icsr_cli.recipes.debiasing import KEY, StoredStatistics, debiased, debiasing
from icsr_cli.recipes.gallery import FileEmbedder, embed_files
from icsr_cli.recipes.steps import Engine, choose_engine
from icsr_cli.runs import create
from icsr_cli.types import FloatArray, Split

pytestmark = pytest.mark.usefixtures("onnx_operators_once")
SIZE = (32, 16)


class Heard(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def icsr(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def places(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Where a finished run of the tiny data set is, its network untrained."""
    root = tmp_path_factory.mktemp("runs")
    run = create(root, "tiny", "global", name="a")
    save_weights(
        build("resnet_small", seed=1), run.path / "best.safetensors", {"height": "32", "width": "16"}
    )
    run.write_settings({"dataset": "tiny", "image": {"height": 32, "width": 16}})
    run.write_metrics([{"epoch": 1, "loss": 1.0}])
    run.finish()
    return ["--runs", root, "--data-root", tiny_root]


@pytest.fixture(scope="module")
def exported(places: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "net.safetensors"
    shown = icsr("export", "--debias", "full", "--out", path, *places).stdout
    assert "Statistics of 3 cameras (full): 48 training images of tiny" in shown
    return path


CPU = Engine(torch.device("cpu"), "fp32")


def embedded(path: Path, split: Split, engine: Engine = CPU) -> FloatArray:
    embedder = FileEmbedder(open_model(path).eval().to(engine.device), path, SIZE, engine)
    with Progress().task("", 0) as task:
        return embed_files([split.root / name for name in split.paths], embedder, task)[0]


@pytest.fixture(scope="module")
def right(exported: Path, tiny_root: Path) -> CameraStatistics:
    """The statistics, measured again, on the GPU if there is one, as export does."""
    train = datasets.load("tiny", tiny_root).train
    return CameraStatistics.of(embedded(exported, train, choose_engine(None, "fp32")), train.cameras)


def test_what_was_stored_is_read_back_to_the_bit(exported: Path, right: CameraStatistics) -> None:
    found = StoredStatistics.read(exported, SIZE)
    np.testing.assert_array_equal(found.statistics.mean, right.mean)
    np.testing.assert_array_equal(found.statistics.spread, right.spread)
    assert (found.mode, found.dataset, found.images) == ("full", "tiny", 48)
    assert "48 training images of tiny" in exported.with_suffix(".md").read_text()


def test_they_are_off_by_default(places: list[object], tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    icsr("export", "--out", path, *places)
    assert KEY not in read_metadata(path)
    assert "Statistics of cameras" not in path.with_suffix(".md").read_text()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_apply_is_that_of_the_statistics(kind: str, exported: Path, right: CameraStatistics) -> None:
    names = StoredStatistics.read(exported, SIZE).cameras
    random = np.random.default_rng(0)
    rows = random.integers(0, 3, 20)
    features: Any = random.standard_normal((20, right.mean.shape[1])).astype(np.float32)
    if kind == "torch":
        features = torch.from_numpy(features)
    found = debiased(features, rows, names, debiasing("stored", exported, SIZE), Progress())
    assert type(found) is type(features)
    np.testing.assert_array_equal(found, right.apply(features, rows, "full"))
    # Names count, not numbers: the same images where the cameras have another order.
    order = np.array([2, 0, 1])
    again = debiased(
        features,
        order.argsort()[rows],
        [names[row] for row in order],
        debiasing("stored", exported, SIZE),
        Heard(),
    )
    np.testing.assert_array_equal(again, found)


def test_an_unknown_camera_is_held_against_all_images(exported: Path, right: CameraStatistics) -> None:
    stored, heard = StoredStatistics.read(exported, SIZE), Heard()
    features = np.random.default_rng(0).standard_normal((3, right.mean.shape[1])).astype(np.float32)
    found = stored.apply(features, [stored.cameras[1], "attic", None], heard)
    np.testing.assert_array_equal(found, right.apply(features, np.array([1, 3, 3]), "full"))
    assert len(heard.warnings) == 1
    assert "attic" in heard.warnings[0]
    with pytest.raises(UsageError, match=r"none of the cameras here \(attic\)"):
        stored.apply(features, ["attic", None, "attic"], heard)


def test_a_data_set_of_other_cameras_is_refused_before_pixels_are_made(
    exported: Path, places: list[object], tiny_root: Path, tmp_path: Path
) -> None:
    tiny = datasets.load("tiny", tiny_root)
    index.write(tmp_path, replace(tiny, camera_names=("attic", "cellar", "yard")))
    words = ["--debias", "stored", *places[:2], "--data-root", tmp_path]
    refused = icsr("eval", exported, "-d", "tiny", *words, code=2)
    said = " ".join(refused.stderr.split())
    assert "cameras here (attic, cellar, yard). Prepare 'tiny' with cameras of these names" in said
    assert "--pattern" not in said
    assert not (tmp_path / "tiny" / "pixels").exists()


def test_a_camera_without_training_images_has_no_statistics(tiny_root: Path) -> None:
    tiny = datasets.load("tiny", tiny_root)
    features = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    found = StoredStatistics.of(features, np.array([0, 2, 2, 0, 0, 2]), tiny, "centre")
    assert found.cameras == (tiny.camera_names[0], tiny.camera_names[2])
    assert found.statistics.mean.shape == (3, 4)


def test_search_eval_and_embed_use_them(
    exported: Path, right: CameraStatistics, places: list[object], tiny_root: Path, tmp_path: Path
) -> None:
    tiny = datasets.load("tiny", tiny_root)
    gallery = tiny.splits["gallery"]
    plain = embedded(exported, gallery)
    expected = right.apply(plain, gallery.cameras, "full")
    assert np.abs(expected - normalise_cameras(plain, gallery.cameras, "full")).max() > 1e-3

    out, on = tmp_path / "features.npz", ["--device", "cpu", *places]
    icsr("embed", "tiny", "--split", "gallery", "-n", exported, "--debias", "stored", "--out", out, *on)
    np.testing.assert_allclose(np.load(out)["features"], expected, atol=1e-5)
    assert json.loads(str(np.load(out)["about"]))["debias"] == "stored"

    folder, pattern = tmp_path / "crops", "{camera}_{name}.jpg"
    folder.mkdir()
    for row, record in enumerate(gallery.records):
        name = f"{tiny.camera_names[record.camera]}_{row:03}.jpg"
        (folder / name).write_bytes((gallery.root / record.path).read_bytes())
    options = ["-g", folder, "-n", exported, "--pattern", pattern, "--debias", "stored", "--no-cache"]
    query = f"{tiny.camera_names[gallery.records[4].camera]}_004.jpg"
    answer = icsr("search", folder / query, *options, "--top", 3, "--json", *on[:4])
    matches = json.loads(answer.stdout)["queries"][0]["matches"]
    distances = np.linalg.norm(expected - expected[4], axis=1)
    nearest = [row for row in np.argsort(distances, kind="stable") if row != 4][:3]
    np.testing.assert_allclose([one["distance"] for one in matches], distances[nearest], atol=1e-4)
    icsr("embed", folder, "--pattern", pattern, "-n", exported, "--debias", "stored", "--out", out, *on)
    names = [f"{tiny.camera_names[record.camera]}_{row:03}.jpg" for row, record in enumerate(gallery.records)]
    order = [names.index(path) for path in np.load(out)["paths"]]
    np.testing.assert_allclose(np.load(out)["features"], expected[order], atol=1e-5)

    table = icsr("eval", exported, "-d", "tiny", "--debias", "stored", *on)
    assert "test features debiased (stored)" in table.stdout
    figures = [
        json.loads(icsr("eval", exported, "-d", "tiny", "--debias", word, "--json", *on).stdout)["plain"]
        for word in ("stored", "full", "none")
    ]
    assert figures[0] not in figures[1:]


def test_they_travel_on_into_onnx(exported: Path, places: list[object], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    out = tmp_path / "net.onnx"
    icsr("export", exported, "--debias", "stored", "--out", out, *places)
    metadata = {one.key: one.value for one in onnx.load(out).metadata_props}
    assert metadata[KEY] == read_metadata(exported)[KEY]


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "{run}", "-d", "tiny"],
        ["embed", "tiny", "-n", "{run}", "--out", "{out}.npz"],
        ["search", "{query}", "-g", "{folder}", "-n", "{run}", "--pattern", "{{id}}_{{camera}}s*.jpg"],
        ["export", "{run}", "--out", "{out}.safetensors"],
    ],
    ids=lambda words: words[0],
)
def test_a_file_without_them_is_refused(
    command: list[str], places: list[Any], tiny_root: Path, tmp_path: Path
) -> None:
    query = datasets.load("tiny", tiny_root).splits["query"]
    given = {
        "run": places[1] / "tiny" / "global" / "a",
        "out": tmp_path / "out",
        "query": query.root / query.records[0].path,
        "folder": query.root / "query",
    }
    words = [word.format(**given) for word in command]
    where = places[:2] if command[0] == "search" else places
    refused = icsr(*words, "--debias", "stored", *where, code=2)
    assert "holds no statistics of cameras" in " ".join(refused.stderr.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["search", "embed"])
def test_other_cameras_are_refused_before_images_are_embedded(
    command: str, exported: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "icsr_cli.recipes.gallery.embed_files", lambda *given: pytest.fail("images are embedded")
    )
    monkeypatch.setattr(
        "icsr_cli.recipes.search.embed_files", lambda *given: pytest.fail("images are embedded")
    )
    query = datasets.load("tiny", tiny_root).splits["query"]
    shutil.copy(query.root / query.records[0].path, tmp_path / "attic_1.jpg")
    words = {
        "search": ["search", tmp_path / "attic_1.jpg", "-g", tmp_path, "--no-cache"],
        "embed": ["embed", tmp_path, "--out", tmp_path / "out.npz"],
    }[command]
    options = ["-n", exported, "--pattern", "{camera}_{name}.jpg", "--debias", "stored", "--device", "cpu"]
    assert "none of the cameras here (attic)" in " ".join(icsr(*words, *options, code=2).stderr.split())


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "{file}", "-d", "tiny", "--height", 48],
        ["eval", "{file}", "-d", "tiny", "--set", "image.width=24"],
        ["search", "{query}", "-g", "{folder}", "-n", "{file}", "--pattern", "{{camera}}.jpg", "--width", 24],
        ["export", "{file}", "--out", "{out}.safetensors", "--height", 48],
    ],
    ids=["eval", "eval --set", "search", "export"],
)
def test_those_of_another_size_are_refused(
    command: list[object], exported: Path, places: list[Any], tiny_root: Path, tmp_path: Path
) -> None:
    query = datasets.load("tiny", tiny_root).splits["query"]
    image = query.root / query.records[0].path
    given = {"file": exported, "query": image, "folder": query.root, "out": tmp_path / "out"}
    words = [str(word).format(**given) for word in command]
    where = places[:2] if command[0] == "search" else places
    refused = " ".join(icsr(*words, "--debias", "stored", *where, code=2).stderr.split())
    assert "statistics of images of 32 x 16, and they are looked at at" in refused
    assert not list(tmp_path.iterdir())


def test_weights_are_looked_at_at_their_size_whatever_else_is_set(
    exported: Path, places: list[object]
) -> None:
    """The data set's own settings say 64 x 32."""
    plain = icsr("eval", exported, "-d", "tiny", "--json", *places)
    other = icsr("eval", exported, "-d", "tiny", "--set", "evaluation.k1=5", "--json", *places)
    assert other.stdout == plain.stdout


def test_export_without_training_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(build("resnet_small", seed=1), path, {"height": "32", "width": "16"})
    out = tmp_path / "out.safetensors"
    refused = icsr("export", path, "--debias", "centre", "--out", out, code=2)
    assert "needs the training images" in " ".join(refused.stderr.split())
    assert not out.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "none"},
        {"cameras": ["one"]},
        {"mean": "not base64"},
        {"spread": base64.b64encode(np.full((4, 128), np.nan, "<f4").tobytes()).decode()},
        {"images": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_damaged_statistics_are_refused(change: dict[str, Any], exported: Path, tmp_path: Path) -> None:
    header = read_metadata(exported)
    assert header["features"] == "128"
    path = tmp_path / "net.safetensors"
    for text in (json.dumps(json.loads(header[KEY]) | change), "[" * 100_000):
        save_weights(open_model(exported), path, header | {KEY: text})
        with pytest.raises(ModelError, match="statistics of cameras are damaged"):
            StoredStatistics.read(path, SIZE)
