"""Weights in and out: files of them, strictly read into a network; safetensors, and their header."""

import argparse
import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from icsr_cli.errors import ModelError, not_utf8, reason, some
from icsr_cli.files import check_zip, parse_json, write_bytes
from icsr_cli.models.backbones import Layout
from icsr_cli.models.network import ModelSpec, Network
from icsr_cli.models.positions import fit_positions
from icsr_cli.types import IMAGENET, PixelNorm, Size

#: Under which of a checkpoint's keys the parameters are; the teacher is what DINO leaves behind.
_CONTAINERS = ("state_dict", "teacher", "model")
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")
_HEAD = ("gap.", "feat.", "feat_bn.")
# How torch.load names what it refuses to call or to build.
_FORBIDDEN = re.compile(r"(?:GLOBAL|unrecognized function|build for type) (\S+)")
#: The key of the checksum among the metadata of our safetensors files.
_CHECKSUM = "sha256"


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file or a PyTorch checkpoint, on the CPU.

    A ``{"state_dict": ...}`` around it (``teacher``, ``model``) and the prefixes ``module.`` and
    ``_orig_mod.`` are taken off.
    A PyTorch file is opened with ``weights_only=True``: nothing in it can run.
    Raises ModelError where the file is missing, damaged, not a checkpoint, or holds more than plain data.
    """
    path = require_file(path)
    if path.suffix == ".onnx":
        raise ModelError(f"{path}: ONNX is written, for other programs, not read. Give what it was made of.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(content, Mapping):
        inner = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        content = content if inner is None else content[inner]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"{path}: no state dict in it, but {type(content).__name__}. Give a file of weights."
        )
    strange = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise ModelError(
            f"{path}: no state dict in it: {some(strange)} are not tensors. "
            "Give a file that holds the parameters, alone or under 'state_dict'."
        )
    state = {_WRAPPERS.sub("", str(name)): value for name, value in content.items()}
    for name, value in state.items():
        _check_values(path, name, value)
    return state


def require_file(path: str | Path) -> Path:
    """Give the path of a file of weights. Raises :class:`ModelError` where there is none."""
    path = Path(path)
    if not path.is_file():
        raise ModelError(
            f"{path}: there is no such file of weights. Check the path; a run is named by its "
            "folder, runs/<data set>/<cam or global>/NAME."
        )
    return path


def _check_values(path: Path, name: str, value: Tensor) -> None:
    """Refuse what no training leaves behind."""
    fault = None
    if value.is_complex() or value.dtype == torch.bool:
        fault = f"is of type {value.dtype}"
    elif value.is_floating_point() and not bool(value.isfinite().all()):
        fault = "holds NaN or infinite numbers"
    if fault:
        raise ModelError(f"{path}: the tensor {name} {fault}: the file is damaged, or of a broken training.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    said = read_metadata(path).get(_CHECKSUM)
    if said is not None and said != _checksum(*_divide(path.read_bytes())):
        raise ModelError(f"{path}: damaged, its checksum does not fit. Copy or download it again.")
    return load_file(path)


def _read_torch(path: Path) -> Any:
    scalar = np.float64(0).__reduce__()[0]
    # Published checkpoints carry their mAP as a numpy number: these only make numbers out of bytes.
    numbers: list[Any] = [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        argparse.Namespace,  # the options of a training; it holds values only
        *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
    ]
    try:
        check_zip(path)
        with torch.serialization.safe_globals(numbers), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly every kind of error on a damaged file
        unread = isinstance(error, pickle.UnpicklingError)
        if unread and (culprit := _FORBIDDEN.search(str(error))):
            raise ModelError(
                f"{path}: refused, because it holds an object ({culprit.group(1)}) that could run code when "
                "opened. Give a file with nothing but tensors and numbers, a state dict or safetensors."
            ) from error
        raise ModelError(
            f"{path}: not a whole PyTorch checkpoint ({path.stat().st_size} bytes; "
            f"{'no readable tensors' if unread else reason(error)}). Copy or download it again."
        ) from error


def is_backbone(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict with our names holds a backbone and nothing of pooling or embedding."""
    return not any(name.startswith(_HEAD) for name in state)


def load_into(
    model: Network, state: Mapping[str, Tensor], source: str, size: Size | None = None
) -> PixelNorm | None:
    """Load a state dict into a network; every name and shape has to fit.

    A plain backbone, ImageNet weights for instance, leaves pooling, embedding and the last normalisation as
    they are. What the layout leaves out (classifiers, heads of pretraining) is left out. A table of positions
    is resized to the network's patches. ``state`` is in any layout of its family, ``source`` names it in
    messages, ``size`` is the (height, width) of the images that its positions are of, where that is known.
    Gives what the weights' pixels are normalised by, where their layout tells.

    Raises:
        ModelError: names are missing, unexpected, or of another shape; the message lists them, and the
            model is as it was.
    """
    layout = model.architecture.layout_of(state) or Layout("none of the family's", "")
    own, new = model.state_dict(), layout.rename(state)
    new = {name: new[name] for name in new if name in own or not re.match(layout.spare, name)}
    new = fit_positions(model, own, new, source, size)
    # Files older than PyTorch 0.4.1 do not count batches.
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    if new and is_backbone(new):
        optional |= {name for name in own if name.startswith(_HEAD)}
    faults = {
        "missing": [name for name in own if name not in new and name not in optional],
        "unexpected": [name for name in new if name not in own],
        "of another shape": [
            f"{name} {tuple(new[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in new and new[name].shape != own[name].shape
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{len(names)} {what}: {some(names)}" for what, names in faults.items() if names)
        raise ModelError(
            f"{source}: these weights do not fit {model.spec.title}. {found}. {way_out(model.spec, source)}"
        )
    if fault := layout.fault(model.base):
        raise ModelError(f"{source}: these weights do not fit {model.arch}: {fault}.")
    for name, value in new.items():
        if value.dim() > 1 and value.numel() and not bool(value.any()) and bool(own[name].any()):
            raise ModelError(
                f"{source}: the tensor {name} is all zero: the file is damaged, or of a broken training."
            )
    model.load_state_dict(new, strict=False)
    return layout.norm(state)


def way_out(spec: ModelSpec, source: str) -> str:
    """Say how the network of ``spec`` becomes that of ``source``, by its header if it is a file with one."""
    try:
        other = spec_of(read_metadata(source))
    except (ModelError, OSError):
        return "Build the network with the architecture, num_features, pooling, stripes and size of the file."
    odd = {key: value for key, value in other.options.items() if value != spec.options[key]}
    # Where images have one size, shapes may depend on it.
    if not odd and (spec.size is None or other.size in (None, spec.size)):
        return "They do not fit what its own header says: it is damaged. Copy it again."
    words = [f"-a {odd.pop('arch')}"] if "arch" in odd else []
    words += [f"--set STAGE.model.{key}={value}" for key, value in odd.items()]
    words += [f"--height {other.size[0]} --width {other.size[1]}"] if other.size else []
    typed = " ".join(words)
    return (
        f"The file holds {other.title}. Ask for that: {typed}; or name the run that it is of, which says it "
        "itself: --init RUN."
    )


def save_weights(model: Network, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a network as safetensors, whole or not at all.

    The header holds ``metadata`` (height and width of the images, for instance) and its ``ModelSpec``.
    Raises ModelError where the file cannot be written; what was there before is intact.
    """
    path = Path(path)
    header = {**(metadata or {}), **model.spec.metadata()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    try:
        write_bytes(path, _sealed(save(tensors, metadata=header)))
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be written ({error.strerror or error}). What was there before is intact. "
            "Check that the folder exists and has room."
        ) from error


def _sealed(blob: bytes) -> bytes:
    """Sort the header of a safetensors file, which comes in any order, and put a checksum into it.

    Equal networks give equal bytes.
    """
    header, data = _divide(blob)
    header.setdefault("__metadata__", {})[_CHECKSUM] = _checksum(header, data)
    text = _header_text(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _divide(blob: bytes) -> tuple[dict[str, Any], memoryview]:
    """Give the header and the numbers of a safetensors file."""
    length = int.from_bytes(blob[:8], "little")
    return json.loads(blob[8 : 8 + length]), memoryview(blob)[8 + length :]


def _checksum(header: Mapping[str, Any], data: memoryview) -> str:
    """Give the SHA-256 of a header, but for the checksum in it, and of the numbers."""
    about = {name: value for name, value in header.get("__metadata__", {}).items() if name != _CHECKSUM}
    digest = hashlib.sha256(_header_text({**header, "__metadata__": about}))
    digest.update(data)
    return digest.hexdigest()


def _header_text(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the header of a safetensors file; empty for other files.

    Raises ModelError where the file is missing or damaged, or its header says nonsense of the images, and
    OSError where it may not be read.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return {}
    require_file(path).open("rb").close()  # safetensors takes what may not be read for what is not there
    if not_utf8([str(path)]):
        raise ModelError(
            f"{path}: safetensors opens no path that is not UTF-8. Rename the folder, or work within it and "
            "give the path from there."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({reason(error)}). Copy or download it again."
        ) from error
    try:
        size_of(header)
        if "arch" in header:
            norm_of(header)
    except ModelError as error:
        raise ModelError(f"{path}: {error} Copy or export it again.") from error
    return header


def norm_of(header: Mapping[str, str]) -> PixelNorm:
    """Give what the pixels are normalised by, as a header says; ImageNet's where it says nothing.

    Raises ModelError where it says nonsense.
    """
    if "mean" not in header and "std" not in header:
        return IMAGENET
    try:
        mean, std = (tuple(map(float, parse_json(header[part]))) for part in ("mean", "std"))
        return PixelNorm(mean, std)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"the header does not say what the pixels are normalised by ({reason(error)})."
        ) from error


def size_of(header: Mapping[str, str]) -> Size | None:
    """Give (height, width) of the images, where a header says it.

    Raises ModelError where it says nonsense.
    """
    if not {"height", "width"} <= header.keys():
        return None
    try:
        return _number(header, "height", 1, 8192), _number(header, "width", 1, 8192)
    except ValueError as error:
        raise ModelError(f"the header does not say the size of the images ({reason(error)}).") from error


def spec_of(header: Mapping[str, str]) -> ModelSpec:
    """Give what a network is made of, as a header says.

    Raises ModelError where something is missing, or nonsense.
    """
    try:
        arch, pooling = header["arch"], header["pooling"]
        width, stripes = _number(header, "num_features", 0, 65536), _number(header, "stripes", 1, 128)
        return ModelSpec(arch, width, pooling, stripes, norm_of(header), size_of(header))
    except (KeyError, ValueError) as error:
        raise ModelError(f"the header does not say what the network is made of ({reason(error)}).") from error


def _number(header: Mapping[str, str], key: str, low: int, high: int) -> int:
    """Read a whole number. Beyond ``high`` no network is meant, and to build it would take all memory."""
    value = int(header[key])
    if not low <= value <= high:
        raise ValueError(f"{key}: expected {low} to {high}, got {header[key]}")
    return value
