"""Export: a network as an ONNX file, checked against PyTorch, or as safetensors with a model card."""

import copy
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from icsr_cli import __version__
from icsr_cli.errors import MissingExtraError, ModelError, reason
from icsr_cli.features import extract
from icsr_cli.files import whole_file, write_text
from icsr_cli.images.augment import normalise
from icsr_cli.models import Network, resized, save_weights
from icsr_cli.models.backbones.resnet_ibn import InstanceBatchNorm
from icsr_cli.progress import Progress
from icsr_cli.recipes.debiasing import KEY, StoredStatistics
from icsr_cli.recipes.gallery import FileEmbedder, embed_readable
from icsr_cli.recipes.model_card import Origin, model_card
from icsr_cli.types import IMAGENET, Dataset, FloatArray, PixelArray, PixelNorm, Size

#: What the exported network takes: ``normalised`` float32 (n, 3, h, w), ``pixels`` uint8 (n, h, w, 3), or
#: ``crops``, the same of any size, which are resized in the graph.
Input = Literal["normalised", "pixels", "crops"]

#: Old enough for the runtimes of trackers, and the exporter's own.
OPSET: Final = 18
#: Features of ONNX Runtime and of PyTorch have to be this much alike, image by image.
LEAST_COSINE: Final = 0.9999
_BATCHES: Final = (1, 2, 5)
_CROP_BATCH: Final = 8


@dataclass(frozen=True)
class Export:
    """What was written.

    ``cosine`` is the least cosine between features of ONNX Runtime and PyTorch over ``random_images`` and
    ``crops``; None where nothing was translated (safetensors). ``card`` is the model card, if any.
    """

    path: Path
    format: str
    bytes: int
    arch: str
    features: int
    height: int
    width: int
    input: str = "normalised"
    cosine: float | None = None
    random_images: int = 0
    crops: int = 0
    card: Path | None = None


def export_onnx(
    network: Network,
    size: Size,
    path: Path,
    *,
    kind: Input = "normalised",
    origin: Origin | None = None,
    crops: PixelArray | None = None,
) -> Export:
    """Write ``network`` as one ONNX file with a dynamic batch; it is there only if it does what PyTorch does.

    The input is called ``images``, the output ``features`` (float32 (n, d), unit length). Its metadata tell
    how images are made ready (``onnx_metadata``). ``crops`` uint8 (m, h, w, 3) are real images to check with,
    besides random ones.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ModelError: the network cannot be translated, or the file's features differ.
    """
    for library in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise MissingExtraError(library, "onnx", "The export to ONNX", error) from None
    network = resized(network, size).cpu().eval()
    with whole_file(path) as temporary:
        _translate(network, size, temporary, kind, onnx_metadata(network, size, kind, origin))
        cosine = _compare(network, size, temporary, kind, crops)
        if not cosine > LEAST_COSINE:
            raise ModelError(
                f"The ONNX file does not do what the network does: the least cosine of their features is "
                f"{cosine:.6f}, at least {LEAST_COSINE} was expected. Nothing was written. Another version "
                "of torch, onnxscript or onnxruntime may help: icsr doctor shows which are installed."
            )
    about = ("onnx", path.stat().st_size, network.arch, network.dim, *size)
    return Export(path, *about, kind, cosine, sum(_BATCHES), 0 if crops is None else len(crops))


def export_safetensors(network: Network, size: Size, path: Path, origin: Origin) -> Export:
    """Write weights, with what is needed to use them in the header, and a model card beside them (.md).

    Raises:
        ModelError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    card = path.with_suffix(".md")
    network = resized(network, size)
    metadata = _common_metadata(network, size, origin)
    save_weights(network, path, metadata)
    write_text(card, model_card(network, size, path, origin))
    return Export(path, "safetensors", path.stat().st_size, network.arch, network.dim, *size, card=card)


def camera_statistics(
    embedder: FileEmbedder, dataset: Dataset, mode: Literal["centre", "full"], progress: Progress
) -> StoredStatistics:
    """Measure the features of the training images under each camera; those that cannot be read are left out.

    Raises:
        DatasetError: none can be read.
    """
    train = dataset.train
    features, kept = embed_readable(train.root, train.paths, embedder, progress, "Train features")
    return StoredStatistics.of(features, train.cameras[kept], dataset, mode)


def onnx_metadata(network: Network, size: Size, kind: Input, origin: Origin | None = None) -> dict[str, str]:
    """Give the metadata of an ONNX file: all that is needed to make images ready, as text or JSON."""
    taken = {
        "normalised": {"layout": "NCHW", "dtype": "float32", "normalisation": "(rgb / 255 - mean) / std"},
        "pixels": {"layout": "NHWC", "dtype": "uint8", "normalisation": "in the graph"},
    }
    taken["crops"] = {**taken["pixels"], "resize": "in the graph"}
    return {**_common_metadata(network, size, origin), "input": kind, **taken[kind]}


def _common_metadata(network: Network, size: Size, origin: Origin | None) -> dict[str, str]:
    about = {}
    if origin is not None:
        about = {"dataset": origin.dataset or "", "licence": origin.licence or ""}
        about["thresholds"] = json.dumps(origin.thresholds) if origin.thresholds else ""
        about[KEY] = origin.statistics.as_text() if origin.statistics else ""
    return {
        "icsr_version": __version__,
        **network.spec.metadata(),
        "features": str(network.dim),
        "height": str(size[0]),
        "width": str(size[1]),
        "channels": "RGB",
        "mean": json.dumps(network.norm.mean),
        "std": json.dumps(network.norm.std),
        "resize": "bicubic, antialiased, to height x width, without keeping the aspect",
        "distance": "Euclidean or cosine, of features of unit length",
        **{name: value for name, value in about.items() if value},
    }


class _FromPixels(nn.Module):
    """Uint8 (n, h, w, 3), RGB, to features: the normalisation is in the graph, and so is ``resize``, if any.

    As Pillow does it: bicubic with antialiasing, to whole numbers from 0 to 255.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Network, resize: Size | None) -> None:
        super().__init__()
        self.network, self.resize = network, resize
        std = torch.tensor(network.norm.std)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -torch.tensor(network.norm.mean) / std)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise and embed."""
        values = images.to(torch.float32)
        if self.resize:
            planes = interpolate(values.permute(0, 3, 1, 2), self.resize, mode="bicubic", antialias=True)
            values = planes.round().clamp(0, 255).permute(0, 2, 3, 1)
        values = values * self.scale + self.shift
        features: Tensor = self.network(values.permute(0, 3, 1, 2))
        return features


class _Affine(nn.Module):
    """A batch normalisation in evaluation: float (n, c, h, w), scaled and shifted."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.register_buffer("scale", scale.detach()[:, None, None])
        self.register_buffer("shift", (norm.bias - scale * norm.running_mean).detach()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift."""
        return x * self.scale + self.shift


def _readable(network: Network) -> Network:
    """Give a copy without what OpenCV 4 cannot read: a batch normalisation of some of the channels."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, InstanceBatchNorm):
            module.BN = _Affine(module.BN)  # type: ignore[assignment]
    return copied


def _translate(network: Network, size: Size, path: Path, kind: Input, metadata: Mapping[str, str]) -> None:
    # Two images: a batch of one would be taken for a constant.
    example = torch.zeros((2, *size, 3), dtype=torch.uint8)
    readable = _readable(network)
    module: nn.Module = readable
    # torch 2.9 finds that some networks are not the same for one image; whether they are is tried below.
    dynamic = {0: torch.export.Dim("n", min=2)}
    if kind != "normalised":
        module = _FromPixels(readable, size if kind == "crops" else None).eval()
    if kind == "crops":
        example = torch.zeros((2, size[0] + 9, size[1] + 5, 3), dtype=torch.uint8)
        dynamic |= {1: torch.export.Dim("height", min=2), 2: torch.export.Dim("width", min=2)}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (normalise(example, network.norm).contiguous() if kind == "normalised" else example,),
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes=(dynamic,),
                opset_version=OPSET,
                dynamo=True,
                optimize=True,
                verbose=False,
            )
            assert program is not None, "given with dynamo"
            program.model.metadata_props.update(metadata)
            program.model.producer_name, program.model.producer_version = "icsr", __version__
            program.save(str(path), external_data=False)
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{network.arch} cannot be translated to ONNX ({type(error).__name__}: {reason(error)}). icsr "
            "doctor shows the versions of torch and onnxscript; they have to go together."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's steps and hints, which nobody here can act on, to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _compare(network: Network, size: Size, path: Path, kind: Input, crops: PixelArray | None) -> float:
    """Give the least cosine between the features of the file and of the network."""
    run, generator = _runtime(path), np.random.default_rng(0)
    batches = [generator.integers(0, 256, (count, *size, 3), dtype=np.uint8) for count in _BATCHES]
    if crops is not None:
        batches += [crops[first : first + _CROP_BATCH] for first in range(0, len(crops), _CROP_BATCH)]
    least = 1.0
    for pixels in batches:
        expected = extract(network, pixels).numpy()
        given = _by_the_book(pixels, network.norm) if kind == "normalised" else pixels
        found = run(given)
        if found.shape != expected.shape:
            raise ModelError(f"The ONNX file gives features {found.shape}, expected {expected.shape}.")
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = (found.astype(np.float64) * expected).sum(axis=1) / lengths
        least = min(least, float(np.nan_to_num(cosine, nan=-1.0).min()))
    return least


def _by_the_book(pixels: PixelArray, norm: PixelNorm = IMAGENET) -> FloatArray:
    """Make images ready as the metadata say, the way a reader of them would."""
    mean, std = np.array(norm.mean, np.float32), np.array(norm.std, np.float32)
    values = (pixels.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def _runtime(path: Path) -> Callable[[npt.NDArray[Any]], FloatArray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no class but this
        raise ModelError(
            f"ONNX Runtime cannot open the file ({error}). Nothing was written. "
            "A newer onnxruntime may help: pip install --upgrade onnxruntime"
        ) from error
    return lambda images: np.asarray(session.run(["features"], {"images": images})[0])
