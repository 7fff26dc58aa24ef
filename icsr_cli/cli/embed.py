"""``icsr embed``: features of a folder of images or of a data set, for other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from icsr_cli.cli import complete
from icsr_cli.cli.options import DataRoot, Debias, Device, Json, Network, Pattern, Precision, Quiet, RunsRoot
from icsr_cli.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from icsr_cli.types import IntArray


def embed(
    images: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|DATASET",
            help="A folder of images, or a prepared data set.",
            autocompletion=complete.datasets,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the features go: .npz or .parquet.")],
    network: Network = None,
    split: Annotated[
        Literal["train", "query", "gallery"], typer.Option("--split", help="Of a data set: which images.")
    ] = "train",
    pattern: Pattern = None,
    debias: Debias = "none",
    precision: Precision = "auto",
    device: Device = None,
    data_root: DataRoot = Path("data"),
    runs_root: RunsRoot = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write features, paths, cameras and identities (where known), the network's hash and preprocessing.

    The .npz is what icsr labels generate takes: features float32 (n, d) of unit length, paths, cameras, ids.
    The .parquet holds the same, a row for each image, for data bases of vectors.

    Example: icsr embed crops --pattern '{camera}/{name}.jpg' --out features.npz
    """
    import numpy as np

    from icsr_cli.cli.console import make_progress, message, print_json
    from icsr_cli.distances import normalise_cameras
    from icsr_cli.files import write_with
    from icsr_cli.recipes.feature_files import writer
    from icsr_cli.recipes.gallery import embed_files, open_embedder
    from icsr_cli.recipes.steps import choose_engine

    if out.suffix not in (".npz", ".parquet"):
        raise UsageError(f"--out must end in .npz or .parquet, got {out}.")
    save = writer(out.suffix)
    progress = make_progress(quiet, as_json)
    root, paths, cameras, ids = images_of(images, split, pattern, data_root)
    if debias != "none" and cameras is None:
        raise UsageError("--debias needs the camera of each image: say where a path has it by --pattern.")
    embedder = open_embedder(network, runs_root, choose_engine(device, precision), progress)
    with progress.task("Features", len(paths), "img") as task:
        features, faults = embed_files([root / path for path in paths], embedder, task)
    if faults:
        progress.warn(
            f"{len(faults):,} images cannot be read and are left out, such as {paths[faults[0][0]]}."
        )
    kept = np.setdiff1d(np.arange(len(paths)), [row for row, _ in faults])
    if not len(kept):
        raise DatasetError(f"None of the {len(paths)} images can be read.")
    columns: dict[str, Any] = {"paths": np.array(paths)[kept]}
    columns |= {} if cameras is None else {"cameras": cameras[kept]}
    columns |= {} if ids is None else {"ids": ids[kept]}
    columns |= {name: found[kept] for name, found in tracks_of(images, split, data_root).items()}
    about = {
        "network": embedder.checksum(),
        "weights": str(embedder.weights),
        "arch": embedder.network.arch,
        "height": embedder.size[0],
        "width": embedder.size[1],
        "resize": "bicubic with antialiasing",
        "normalisation": embedder.network.norm.name,
        "mean": embedder.network.norm.mean,
        "std": embedder.network.norm.std,
        "debias": debias,
    }
    if cameras is not None:
        features = normalise_cameras(features, cameras[kept], debias)

    write_with(out, lambda temporary: save(temporary, features, columns, json.dumps(about)))
    shown = {"out": str(out), "images": len(kept), "features": features.shape[1], "columns": list(columns)}
    print_json({**shown, **about}) if as_json else message(
        f"{len(kept):,} images, {features.shape[1]} features each, {', '.join(columns)}: {out}"
    )


def tracks_of(images: str, split: str, data_root: Path) -> dict[str, IntArray]:
    """Give the tracks and frames of a prepared data set, where it has any."""
    from icsr_cli import datasets

    if Path(images).is_dir():
        return {}
    known = datasets.load(images, data_root).splits[split].when()
    return {name: found for name, found in known.items() if found is not None}


def images_of(
    images: str, split: str, pattern: str | None, data_root: Path
) -> tuple[Path, list[str], IntArray | None, IntArray | None]:
    """Give the folder, the paths in it, and cameras from 0 and identities where they are known."""
    import numpy as np

    from icsr_cli import datasets
    from icsr_cli.datasets.folder import read_pattern
    from icsr_cli.datasets.scan import image_files

    folder = Path(images)
    if not folder.is_dir():
        part = datasets.load(images, data_root).splits.get(split)
        if part is None or not len(part):
            raise UsageError(f"The data set {images!r} has no {split} images.")
        ids = part.identities if part.has_identities else None
        return part.root, [record.path for record in part.records], part.cameras, ids
    if pattern is None:
        paths = image_files(folder, recursive=True)
        if not paths:
            raise DatasetError(f"There is no image in {folder}, nor in folders below.")
        return folder, paths, None, None
    rows, _ = read_pattern(folder, pattern)
    if not rows:
        raise UsageError(f"No path in {folder} fits --pattern {pattern!r}.")
    named = [row.identity for row in rows]
    cameras = np.unique([row.camera for row in rows], return_inverse=True)[1].astype(np.int64)
    numbers = {
        name: number for number, name in enumerate(sorted({name for name in named if name is not None}))
    }
    ids = np.array([numbers.get(name, -1) if name is not None else -1 for name in named], dtype=np.int64)
    return folder, [row.path for row in rows], cameras, ids if numbers else None
