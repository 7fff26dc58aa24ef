"""Export: the ONNX file does what the network does, or is not written; the card says where it is from."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from icsr_cli.errors import MissingExtraError, ModelError
from icsr_cli.features import extract
from icsr_cli.models import Network, build, open_model, read_metadata
from icsr_cli.recipes import export as module
from icsr_cli.recipes.export import export_onnx, export_safetensors, onnx_metadata
from icsr_cli.recipes.model_card import Origin, origin_of
from icsr_cli.runs import create

pytestmark = pytest.mark.usefixtures("onnx_operators_once")
SIZE = (32, 16)


def make(arch: str = "resnet_small", **options: int | str) -> Network:
    """Give a small network whose normalisations have seen something."""
    network = build(arch, seed=1, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(2)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    return network.eval()


def crops(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arch", "options", "kind"),
    [
        ("resnet_small", {}, "normalised"),
        ("resnet_small", {"num_features": 24, "stripes": 2, "pooling": "avg"}, "pixels"),
        ("resnet_small", {"stripes": 4, "pooling": "max"}, "crops"),
        pytest.param("resnet_ibn50a", {}, "normalised", marks=pytest.mark.slow),
    ],
)
def test_the_file_does_what_the_network_does(
    arch: str,
    options: dict[str, int | str],
    kind: module.Input,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    network = make(arch, **options)
    if arch == "resnet_ibn50a":  # the blocks of a stage behind the second repeat it
        for stage in "4567":
            del network.base.get_submodule(stage)[2:]
    path = tmp_path / "new" / "net.onnx"
    found = export_onnx(network, SIZE, path, kind=kind, origin=Origin(path, "tiny"), crops=crops(3))
    assert capfd.readouterr() == ("", "")
    # An instance normalisation of images this small is over two places, and swells what was rounded.
    swollen = arch == "resnet_ibn50a"
    assert found.cosine is not None
    assert found.cosine > (0.9999 if swollen else 0.99999)
    assert (found.random_images, found.crops, found.bytes) == (8, 3, path.stat().st_size)
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"]  # one file, no data beside it

    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, given.name) == ("images", "features")
    shape = {"normalised": [3, *SIZE], "pixels": [*SIZE, 3], "crops": ["height", "width", 3]}[kind]
    assert taken.shape == ["n", *shape]
    assert taken.type == ("tensor(float)" if kind == "normalised" else "tensor(uint8)")
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["dataset"] == "tiny"
    assert metadata["layout"] == ("NCHW" if kind == "normalised" else "NHWC")
    images = crops(7, seed=9)
    expected = extract(network, images).numpy()
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)
    if kind == "normalised":  # as a reader of the metadata would
        mean, std = (np.float32(json.loads(metadata[name])) for name in ("mean", "std"))
        images = ((images / np.float32(255) - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        session.run(None, {"images": images})[0], expected, atol=2e-4 if swollen else 1e-5
    )
    if kind == "crops":
        assert_crops_of_any_size_are_resized(session, network)
    else:
        assert_opencv_reads_it(path, network, kind, 5e-5 if swollen else 1e-5)


def assert_opencv_reads_it(path: Path, network: Network, kind: module.Input, close: float) -> None:
    cv2 = pytest.importorskip("cv2")
    for count in (1, 3):
        images = crops(count)
        expected = extract(network, images).numpy()
        given = images if kind == "pixels" else module._by_the_book(images)
        reader = cv2.dnn.readNetFromONNX(str(path))
        reader.setInput(given, "images")
        np.testing.assert_allclose(reader.forward(), expected, atol=close)


def assert_crops_of_any_size_are_resized(session: Any, network: Network) -> None:
    rng = np.random.default_rng(0)
    for height, width in ((200, 90), (33, 15), (20, 9)):
        small = Image.fromarray(rng.integers(0, 256, (7, 4, 3), dtype=np.uint8))
        crop = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
        as_trained = np.asarray(Image.fromarray(crop).resize(SIZE[::-1], Image.Resampling.BICUBIC))
        expected = extract(network, as_trained[None]).numpy()[0]
        found = session.run(None, {"images": crop[None]})[0][0]
        assert found @ expected > 0.9999


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    path.write_text("what was there before")
    monkeypatch.setattr(module, "_translate", lambda *arguments: arguments[2].write_text("a file"))
    network = make()

    def turned(_: Path) -> object:
        def run(images: np.ndarray) -> np.ndarray:
            features = network(torch.from_numpy(images)).detach().numpy()
            return features + (0.05 if len(images) == 5 else 0)  # wrong only in the last batch

        return run

    monkeypatch.setattr(module, "_runtime", turned)
    with pytest.raises(ModelError, match="least cosine"):
        export_onnx(network, SIZE, path)
    monkeypatch.setattr(module, "_runtime", lambda _: lambda images: np.full((len(images), 128), np.nan))
    with pytest.raises(ModelError, match="least cosine"):
        export_onnx(network, SIZE, path)
    monkeypatch.setattr(module, "_runtime", lambda _: lambda images: np.ones((1, 128)))
    with pytest.raises(ModelError, match="expected"):
        export_onnx(network, SIZE, path)
    assert path.read_text() == "what was there before"
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_a_file_that_the_runtime_refuses_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(module, "_translate", lambda *arguments: arguments[2].write_text("no ONNX"))
    with pytest.raises(ModelError, match="ONNX Runtime cannot open"):
        export_onnx(make(), SIZE, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_names_the_line_that_installs_it(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.importlib, "import_module", lambda name: _absent(name, library))
    with pytest.raises(MissingExtraError, match=rf"'{library}'.*pip install 'icsr\[onnx\]'"):
        export_onnx(make(), SIZE, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_library_that_is_broken_is_not_told_of_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise ImportError("libonnx.so: failed to map segment")

    monkeypatch.setattr(module.importlib, "import_module", broken)
    with pytest.raises(MissingExtraError, match=r"cannot be loaded \(libonnx.*Install it anew with"):
        export_onnx(make(), SIZE, tmp_path / "net.onnx")


def _absent(name: str, library: str) -> object:
    if name == library:
        raise ModuleNotFoundError(name)
    return sys


def test_metadata_hold_what_a_tracker_needs() -> None:
    metadata = onnx_metadata(make(num_features=24), SIZE, "normalised")
    assert metadata["arch"] == "resnet_small"
    assert (metadata["height"], metadata["width"], metadata["features"]) == ("32", "16", "24")
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
    assert metadata["icsr_version"]
    assert all(isinstance(value, str) for value in metadata.values())


def test_safetensors_open_again_and_have_a_card(tmp_path: Path) -> None:
    network = make()
    run = create(tmp_path / "runs", "market1501", "global", name="a")
    settings = {"dataset": "market1501", "method": "camera-aware", "cam": {"lr": 1}}
    run.write_settings({**settings, "global": {"model": {"arch": "x"}}})
    quality = {"refined": {"pairwise_f": 0.512345, "nmi": 0.75}}
    run.write_metrics([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5, "quality": quality}])
    run.finish()
    path = tmp_path / "out" / "net.safetensors"
    found = export_safetensors(network, SIZE, path, origin_of(run.path / "best.safetensors", run, None))
    assert found.cosine is None
    header = read_metadata(path)
    assert (header["height"], header["width"], header["dataset"]) == ("32", "16", "market1501")
    again = open_model(path).eval()
    images = crops(2)
    torch.testing.assert_close(extract(again, images), extract(network, images))
    assert found.card == tmp_path / "out" / "net.md"
    card = found.card.read_text()
    for words in (
        "trained on market1501",
        "Trained without identities, by the method camera-aware of icsr.",
        "Academic use only; no redistribution.",
        "ICCV 2015",
        "| epoch | 2 |",
        "| refined pairwise_f | 0.5123 |",
        "arch: x",
        "best.safetensors",
        "personal data",
        "float32 (n, 3, 32, 16)",
    ):
        assert words in card, words
    assert "lr: 1" not in card  # a setting of the other stage


def test_a_camera_s_network_has_that_camera_s_figures(tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "cam", name="a")
    run.write_metrics([{"part": name, "epoch": epoch} for name in ("cam_0", "cam_1") for epoch in (1, 2)])
    run.write_metrics([*run.metrics(), {"part": "cam_1", "epoch": 3}])
    assert origin_of(Path("cam_0.safetensors"), run, None).figures == {"epoch": 2}
    assert origin_of(Path("last.safetensors"), run, None).figures == {"epoch": 3}


def test_what_is_unknown_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    origin = origin_of(Path("found.pth"), None, None)
    card = export_safetensors(make(), SIZE, path, origin).card
    assert card is not None
    text = card.read_text()
    assert "Nothing is known of its training" in text
    export_safetensors(make(), SIZE, tmp_path / "again.safetensors", replace(origin, dataset="shop"))
    again = (tmp_path / "again.md").read_text()
    assert "trained on shop" in again
    assert "Nothing more is known of its training" in again
    assert "Unknown. The data set's licence may bind" in text
    assert "## Training" not in text
    assert "dataset" not in read_metadata(path)


@pytest.mark.parametrize(
    ("dataset", "layout", "words"),
    [
        ("dukemtmcreid", None, "withdrawn"),
        ("mine", "synthetic", "no real person"),
        ("mine", "folder", "Own crops"),
        ("veri", "veri", "."),
    ],
)
def test_licences(dataset: str, layout: str | None, words: str, tmp_path: Path) -> None:
    origin = origin_of(Path("x"), create(tmp_path, dataset, "cam", name="a"), layout)
    assert origin.licence is not None
    assert words in origin.licence
    assert (origin.notice is not None) == (dataset == "dukemtmcreid")
