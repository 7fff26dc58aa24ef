"""Export of every family: the ONNX file does what the network does, in OpenCV too where it is a CNN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icsr_cli.features import extract
from icsr_cli.images.augment import Augmentation, normalise
from icsr_cli.models import Network, build, open_model, resized, save_weights
from icsr_cli.recipes import export as module
from icsr_cli.recipes.export import export_onnx, export_safetensors
from icsr_cli.recipes.model_card import Origin
from icsr_cli.types import PIXEL_NORMS

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("onnx_operators_once")
SIZE = (64, 32)


def make(arch: str, **options: object) -> Network:
    network = build(arch, seed=1, size=SIZE, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(2)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    return network.eval()


def shorten(base: Any) -> None:
    """Keep of blocks that only repeat the first: every kind of layer stays, at its width.

    Of OSNet's two blocks a stage the second has no convolution beside it, of Swin's the second has the
    shifted windows: their first stage keeps both. Swin's other stages keep what merges patches alone.
    """
    if hasattr(base, "blocks"):
        base.blocks = base.blocks[:1]
    for stage in (getattr(base, name, None) for name in ("conv3", "conv4")):
        if isinstance(stage, torch.nn.Sequential):
            del stage[1]
    for block in base.modules():
        for name in ("conv2c", "conv2d"):  # streams of OSNet, of a layer that repeats
            if hasattr(block, name):
                setattr(block, name, getattr(block, name)[:1])
    for stage in list(getattr(base, "layers", ()))[1:]:
        stage.blocks = torch.nn.Sequential()


def crops(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


#: With one kind of input each: every kind of one network is compared in test_export.py. The transformer is
#: exported at another size than it was made for.
SMALL: list[tuple[str, dict[str, object], module.Input, tuple[int, int]]] = [
    ("timm:test_vit", {"pooling": "avg", "stripes": 2}, "pixels", (96, 48)),
    ("timm:test_convnext", {}, "normalised", SIZE),
]
#: As wide as they are used.
LARGE = [
    "osnet_x0_25",
    "timm:vit_small_patch16_dinov3",
    "timm:vit_base_patch16_clip_quickgelu_224",
    "vit_small_ics",
    "solider_swin_tiny",
]


@pytest.mark.parametrize(
    ("arch", "options", "kind", "size"),
    [
        *SMALL,
        *(pytest.param(arch, {}, "normalised", SIZE, marks=pytest.mark.slow) for arch in LARGE),
    ],
)
def test_onnx_runtime(
    arch: str, options: dict[str, object], kind: module.Input, size: tuple[int, int], tmp_path: Path
) -> None:
    import onnxruntime

    network = make(arch, **options)
    if arch in LARGE:
        shorten(network.base)
    found = export_onnx(network, size, tmp_path / "net.onnx", kind=kind)
    assert (found.height, found.width) == size
    assert found.cosine is not None
    assert found.cosine > 0.9999
    assert found.crops == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["mean"]) == list(network.norm.mean)
    images = crops(4, size)
    given = images
    if kind == "normalised":  # as a reader of the metadata would
        mean, std = (np.float32(json.loads(about[name])) for name in ("mean", "std"))
        given = ((images / np.float32(255) - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    expected = extract(resized(network, size), images).numpy()
    np.testing.assert_allclose(session.run(None, {"images": given})[0], expected, atol=2e-5)
    if kind == "normalised" and arch in ("osnet_x0_25", "timm:test_convnext"):
        assert_opencv_does_it_too(network, tmp_path / "net.onnx")


def test_opencv(tmp_path: Path) -> None:
    network = make("timm:test_efficientnet")
    export_onnx(network, SIZE, tmp_path / "net.onnx")
    assert_opencv_does_it_too(network, tmp_path / "net.onnx")


def assert_opencv_does_it_too(network: Network, path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for count in (1, 3):
        images = crops(count)
        reader = cv2.dnn.readNetFromONNX(str(path))
        reader.setInput(module._by_the_book(images, network.norm), "images")
        np.testing.assert_allclose(reader.forward(), extract(network, images).numpy(), atol=5e-5)


def test_the_norm_travels_from_training_to_the_card(tmp_path: Path) -> None:
    network = build("resnet_small", seed=1, mean="luperson", std="luperson").eval()
    norm = PIXEL_NORMS["luperson"]
    pixels = crops(3)
    values = torch.from_numpy(pixels).double() / 255
    mean, std = (torch.tensor(part, dtype=torch.float64) for part in (norm.mean, norm.std))
    expected = ((values - mean) / std).float().permute(0, 3, 1, 2)
    torch.testing.assert_close(normalise(torch.from_numpy(pixels), norm), expected, atol=1e-5, rtol=1e-5)
    still = Augmentation(*SIZE, flip=0, pad=0, erase=0, norm=norm)
    found = still.apply(torch.from_numpy(pixels), still.draw(3, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(extract(network, pixels), network(expected), atol=1e-5, rtol=1e-4)
    save_weights(network, tmp_path / "own.safetensors", {"height": "64", "width": "32"})
    opened = open_model(tmp_path / "own.safetensors")
    card = export_safetensors(opened, SIZE, tmp_path / "net.safetensors", Origin(tmp_path / "own")).card
    assert card is not None
    assert "0.3525, 0.3106, 0.314" in card.read_text()
    assert open_model(tmp_path / "net.safetensors").norm == norm
