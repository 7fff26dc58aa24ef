"""Features of a folder of crops, kept beside it: only images that are new or changed are embedded again.

A cache is one safetensors file: ``features`` float32 (n, d), and in its header ``files``, a JSON list of
(path, size and time of last change) in the same order, and ``checksum``, the SHA-256 of both. Its name is a
checksum of all that features depend on besides the images: weights, architecture, image size, precision.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from icsr_cli import datasets
from icsr_cli.config.schema import ImageSettings
from icsr_cli.datasets.folder import number_cameras, number_identities, read_pattern, records_of
from icsr_cli.datasets.scan import IMAGE_SUFFIXES, image_files
from icsr_cli.errors import DatasetError, UsageError, counted
from icsr_cli.files import parse_json, regular, stamp, whole_file
from icsr_cli.images.decode import resized_or_reason
from icsr_cli.models import Network, resized
from icsr_cli.progress import Progress, Task
from icsr_cli.recipes.evaluation import open_network, weights_file
from icsr_cli.recipes.steps import Engine, choose_engine
from icsr_cli.runs import run_of
from icsr_cli.threads import ahead, usable_cpus
from icsr_cli.types import FloatArray, ImageRecord, IntArray, PixelArray, Size, Split

#: Images decoded at a time; the next as many are decoded while these are embedded.
_CHUNK = 128
#: To be changed with anything that changes pixels or features.
_VERSION = "1"


@dataclass(frozen=True)
class FileEmbedder:
    """A network, the file it came from, the size (height, width) it looks at, and what computes."""

    network: Network
    weights: Path
    size: Size
    engine: Engine

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", resized(self.network, self.size))

    def checksum(self) -> str:
        """Give a checksum of all that features depend on besides the images."""
        with self.weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(f"{_VERSION} {self.network.spec} {self.size} {self.engine.precision}".encode())
        return digest.hexdigest()[:32]


def open_embedder(
    checkpoint: Path | None,
    runs_root: Path,
    device: str | None,
    precision: str | None,
    progress: Progress,
    *,
    height: int | None = None,
    width: int | None = None,
    dataset: str | None = None,
) -> FileEmbedder:
    """Open what ``weights_file`` finds, at the size of its images or another, and say which it is.

    ``device`` and ``precision`` as ``choose_engine`` takes them.
    """
    path = weights_file(checkpoint, runs_root, dataset)
    engine = choose_engine(device, precision, run_of(path))
    network, trained = open_network(path, engine)
    default = trained or ImageSettings().size
    size = height or default[0], width or default[1]
    if trained is None and None in (height, width):
        progress.warn(
            "The file of weights does not say the size of its images: "
            f"{size[0]} x {size[1]} (--height, --width) is taken."
        )
    progress.note(f"Network: {path} ({network.arch}, {network.dim} features, images {size[0]} x {size[1]})")
    return FileEmbedder(network, path, size, engine)


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Gallery:
    """The readable images of a folder, by name, and their features float32 (n, d).

    ``paths`` are POSIX and relative to ``folder``. ``reused`` counts the features that came from ``cache``,
    the file they are kept in (None: nowhere).
    """

    folder: Path
    paths: tuple[str, ...]
    features: FloatArray
    unreadable: tuple[Unreadable, ...]
    reused: int
    cache: Path | None


def open_gallery(folder: Path, embedder: FileEmbedder, progress: Progress, *, keep: bool = True) -> Gallery:
    """Embed every image under ``folder`` that is not in the cache as it is now.

    With ``keep`` False no cache is read or written. A cache that cannot be written is warned of.

    Raises:
        DatasetError: where there is no such folder, no image in it, or none that can be read.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"The gallery {folder} {state}. Give a folder of images of people to --gallery.")
    paths = image_files(folder, recursive=True)
    if not paths:
        raise DatasetError(
            f"There is no image in the gallery {folder}. Expected files that end in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}, in it or in folders below."
        )
    cache = cache_folder(folder) / f"features-{embedder.checksum()}.safetensors" if keep else None
    known = _read_cache(cache, embedder.network.dim) if cache else {}
    there = [(path, stamp(folder / path)) for path in paths]
    new = [file for file in there if file not in known]
    with progress.task("Gallery features", len(new), "img") as task:
        features, faults = embed_files([folder / path for path, _ in new], embedder, task)
    bad = {new[row][0]: reason for row, reason in faults}
    fresh = dict(zip((file for file in new if file[0] not in bad), features, strict=True))
    files = [file for file in there if file[0] not in bad]
    if not files:
        raise DatasetError(
            f"None of the {len(paths)} images in the gallery {folder} can be read, such as "
            f"{paths[0]}: {bad[paths[0]]}."
        )
    found = np.stack([fresh[file] if file in fresh else known[file] for file in files])
    if cache and (fresh or len(known) != len(files)):
        _write_cache(cache, files, found, progress)
    readable = tuple(path for path, _ in files)
    unreadable = tuple(Unreadable(path, reason) for path, reason in bad.items())
    return Gallery(folder, readable, found, unreadable, len(files) - len(fresh), cache)


def images_of(
    images: str, split: str | None, pattern: str | None, data_root: Path, progress: Progress
) -> tuple[Split, tuple[str, ...]]:
    """Find the images of a folder, their names read by ``pattern``, or of a part of a data set.

    Images whose names do not fit are left out and warned of. ``split`` is of a data set, train by default: of
    a folder and a data set of one name it means the data set.
    Gives the images, and the names of the cameras: none where nobody knows which camera took an image.

    Raises:
        UsageError: ``split`` of a folder, ``pattern`` of a data set, or no image fits.
        DatasetError: there is no such data set, or no image in the folder.
    """
    folder, both = Path(images), images in datasets.names(data_root)
    if not folder.is_dir() or (both and split is not None):
        data = datasets.load(images, data_root)
        if pattern is not None:
            raise UsageError(
                f"--pattern is for a folder of images; {images!r} is a data set, which knows its cameras. "
                "Leave it out."
            )
        part = data.splits.get(split or "train")
        if part is None or not len(part):
            raise UsageError(f"The data set {images!r} has no {split or 'train'} images.")
        return part, data.camera_names
    if both:
        progress.note(f"{images} is the folder here; --split train means the data set of that name.")
    if split is not None:
        raise UsageError(
            f"--split is for a prepared data set; {images} is a folder, and all its images are taken. "
            "Leave it out, or give the name of a data set."
        )
    if pattern is None:
        paths = image_files(folder, recursive=True)
        if not paths:
            raise DatasetError(f"There is no image in {folder}, nor in folders below.")
        return Split(folder, tuple(ImageRecord(path, camera=0) for path in paths)), ()
    rows, unread = read_pattern(folder, pattern)
    if not rows:
        raise UsageError(f"No path in {folder} fits --pattern {pattern!r}.")
    warn_unfit([one.path for one in unread], "left out", progress)
    cameras = number_cameras(rows)
    people = number_identities(row.identity for row in rows)
    return Split(folder, tuple(records_of(rows, cameras, people))), tuple(cameras)


def warn_unfit(paths: Sequence[str], what: str, progress: Progress) -> None:
    """Say of images whose paths do not fit the pattern, if any, that they are ``what``."""
    if paths:
        progress.warn(f"{len(paths):,} images do not fit --pattern and are {what}, such as {paths[0]}")


def embed_files(
    paths: Sequence[Path], embedder: FileEmbedder, task: Task
) -> tuple[FloatArray, list[tuple[int, str]]]:
    """Embed image files: float32 (m, d) of those that can be read, and (row, reason) of the others."""
    features = [np.empty((0, embedder.network.dim), dtype=np.float32)]
    faults: list[tuple[int, str]] = []
    for first, chunk in _decoded(paths, embedder.size):
        pixels = [image for image in chunk if not isinstance(image, str)]
        faults += [(first + row, image) for row, image in enumerate(chunk) if isinstance(image, str)]
        if pixels:
            found = embedder.engine.extract(embedder.network, np.stack(pixels), batch_size=_CHUNK, task=task)
            features.append(found.cpu().numpy())
        task.advance(len(chunk) - len(pixels))
    return np.concatenate(features), faults


def embed_readable(
    root: Path, paths: Sequence[str], embedder: FileEmbedder, progress: Progress, title: str
) -> tuple[FloatArray, IntArray]:
    """Embed the images ``paths`` in ``root`` that can be read, and warn of the others.

    Gives their features float32 (m, d), and where they are among ``paths``, int64 (m,).

    Raises:
        DatasetError: none can be read.
    """
    with progress.task(title, len(paths), "img") as task:
        features, faults = embed_files([root / path for path in paths], embedder, task)
    if not len(features):
        raise DatasetError(f"None of the {len(paths)} images can be read.")
    if faults:
        row, why = faults[0]
        left_out = f"{counted(len(faults), 'image')} cannot be read: left out"
        progress.warn(f"{left_out}, such as {paths[row]}: {why}")
    return features, np.delete(np.arange(len(paths)), [row for row, _ in faults])


def _decoded(paths: Sequence[Path], size: Size) -> Iterator[tuple[int, list[PixelArray | str]]]:
    """Give chunks of (first row, pixels or why there are none), one chunk ahead, by threads.

    Pillow decodes and resizes without Python's lock.
    """
    with ThreadPoolExecutor(usable_cpus()) as pool:
        decoded = ahead(pool, partial(resized_or_reason, height=size[0], width=size[1]), paths, _CHUNK)
        for first in range(0, len(paths), _CHUNK):
            yield first, [future.result() for _, future in islice(decoded, _CHUNK)]


def cache_folder(gallery: Path) -> Path:
    """Give ``.icsr`` in the gallery, or where it cannot be written a folder of the user's cache.

    Features of people belong with their pictures: who deletes the gallery deletes both.
    """
    own = gallery / ".icsr"
    if os.access(own if own.is_dir() else gallery, os.W_OK):
        return own
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(os.fsencode(gallery.resolve())).hexdigest()[:16]
    return Path(user) / "icsr" / "galleries" / name


def _read_cache(path: Path, dim: int) -> dict[tuple[str, str], FloatArray]:
    """Give the features by (path, stamp); nothing where there is no cache or it is damaged."""
    try:
        with safe_open(regular(path), framework="np") as file:
            files = [(str(name), str(stamp)) for name, stamp in parse_json(file.metadata()["files"])]
            features = file.get_tensor("features")
            whole = file.metadata()["checksum"] == _checksum(file.metadata()["files"], features)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return {}
    if not whole or features.shape != (len(files), dim) or features.dtype != np.float32:
        return {}
    return dict(zip(files, features, strict=True))


def _checksum(names: str, features: FloatArray) -> str:
    digest = hashlib.sha256(names.encode("utf-8", "surrogateescape"))
    digest.update(features.tobytes())
    return digest.hexdigest()


def _write_cache(
    path: Path, files: Sequence[tuple[str, str]], features: FloatArray, progress: Progress
) -> None:
    names = json.dumps(files)
    header = {"files": names, "checksum": _checksum(names, features)}
    try:
        with whole_file(path) as temporary:
            save_file({"features": features}, temporary, metadata=header)
    except OSError as error:
        progress.warn(
            f"The features of the gallery cannot be kept in {path} ({error.strerror or error}); the next "
            "search computes them anew."
        )
