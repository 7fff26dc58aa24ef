"""``icsr export``: a network as ONNX, checked against PyTorch, or as safetensors with a model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from icsr_cli.cli import options
from icsr_cli.cli.console import make_progress, print_json, print_table, say
from icsr_cli.errors import IcsrError, UsageError, counted

if TYPE_CHECKING:
    from icsr_cli.progress import Progress
    from icsr_cli.recipes.debiasing import StoredStatistics
    from icsr_cli.recipes.export import Export
    from icsr_cli.recipes.gallery import FileEmbedder
    from icsr_cli.runs import RunFolder
    from icsr_cli.types import Dataset

_CHECKED_CROPS = 32


def export(
    ctx: typer.Context,
    network: Annotated[
        Path | None, options.a_run(metavar="RUN|FILE", help="A run or weights; the newest run if left out.")
    ] = None,
    kind: Annotated[
        Literal["onnx", "safetensors"] | None,
        typer.Option("--format", "-f", help="What to write; by the suffix of --out, else onnx."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write; ARCH_HEIGHTxWIDTH.FORMAT here if left out."),
    ] = None,
    takes: Annotated[
        Literal["normalised", "pixels", "crops"],
        typer.Option(
            "--input",
            help="What the ONNX network takes: float32 n x 3 x h x w, normalised as its metadata say; "
            "uint8 n x h x w x 3, RGB as decoded; or such crops of any size.",
        ),
    ] = "normalised",
    resize: Annotated[
        bool, typer.Option("--resize-in-graph", help="The same as --input crops: crops of any size.")
    ] = False,
    debias: Annotated[
        Literal["none", "centre", "full", "stored"],
        typer.Option(
            "--debias",
            help="Store each camera's mean and spread of the features of the training images, for "
            "--debias stored to take the mean (centre) or both (full) off; stored: those in FILE.",
        ),
    ] = "none",
    dataset: Annotated[
        str | None, options.a_dataset(help="Data set to check on, and of the newest run; else the run's.")
    ] = None,
    height: options.Height = None,
    width: options.Width = None,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write a network for other programs.

    The ONNX file takes any number of images at once; it is compared with PyTorch on random images and, where
    the data set is there, on real ones, and written only if their features agree.
    """
    from icsr_cli.models import read_metadata, size_of
    from icsr_cli.recipes.export import export_onnx, export_safetensors
    from icsr_cli.recipes.gallery import open_embedder
    from icsr_cli.recipes.model_card import origin_of
    from icsr_cli.runs import run_of

    if out is not None:
        options.check_out(out, "--out", *([f".{kind}"] if kind else [".onnx", ".safetensors"]))
        kind = "safetensors" if out.suffix == ".safetensors" else "onnx"
    kind = kind or "onnx"
    if resize and takes != "crops":
        options.refuse_typed(ctx, ("takes",), f"--input {takes} is of one size, --resize-in-graph of any;")
    takes = "crops" if resize else takes
    if kind == "safetensors" and takes != "normalised":
        raise UsageError(f"--input {takes} goes with --format onnx; safetensors holds weights alone.")
    progress = make_progress(quiet, as_json)
    embedder = open_embedder(
        network,
        runs_root,
        # Whole data sets are embedded for statistics only.
        None if debias in ("centre", "full") else "cpu",
        "fp32",
        progress,
        height=height,
        width=width,
        dataset=dataset if network is None else None,
    )
    path, opened, size = embedder.weights, embedder.network, embedder.size
    target = out or Path(f"{opened.arch}_{size[0]}x{size[1]}.{kind}")
    options.check_out(target, "--out", reads=[path])
    if kind == "safetensors":
        _check_card(target.with_suffix(".md"))
    run = run_of(path)
    if run is not None and (status := run.info().get("status")) != "finished":
        epochs = counted(len(run.metrics()), "epoch")
        progress.warn(f"The run {run.path} is not finished ({status}): its network is that of {epochs}.")
    data = _dataset(dataset, run, data_root)
    origin = origin_of(path, run, data.layout if data else None)
    if size_of(read_metadata(path)) != size:
        origin = replace(origin, thresholds={})  # they were measured at the other size
    if debias != "none":
        origin = replace(origin, statistics=_statistics(debias, embedder, data, progress))
    if kind == "safetensors":
        found = export_safetensors(opened, size, target, origin)
    else:
        progress.note("Translating and checking: this takes up to a minute")
        crops = _crops(data, size)
        found = export_onnx(opened, size, target, kind=takes, origin=origin, crops=crops)
    if as_json:
        print_json({"network": path, "debias": debias, **vars(found)})
        return
    _show(found)
    if (stored := origin.statistics) is not None:
        say(
            f"Statistics of {counted(len(stored.cameras), 'camera')} ({stored.mode}): "
            f"{counted(stored.images, 'training image')} of {stored.dataset}"
        )


def _check_card(card: Path) -> None:
    """Refuse to write a model card over a file of the same name that is none."""
    options.check_out(card, "The model card")
    if card.exists() and not card.read_bytes().rstrip().rpartition(b"\n")[2].startswith(b"Written by icsr "):
        raise UsageError(f"The model card {card} would take the place of another file. Give another --out.")


def _dataset(name: str | None, run: RunFolder | None, data_root: Path) -> Dataset | None:
    """Load the data set that was asked for, or the run's if it is there."""
    from icsr_cli import datasets

    if name is not None:
        return datasets.load(name, data_root)
    if run is None:
        return None
    try:
        return datasets.load(run.dataset, data_root)
    except IcsrError:
        return None


def _statistics(
    debias: Literal["centre", "full", "stored"],
    embedder: FileEmbedder,
    data: Dataset | None,
    progress: Progress,
) -> StoredStatistics:
    """Measure statistics of the cameras on the training images, or read those that the file holds."""
    from icsr_cli.recipes.debiasing import StoredStatistics
    from icsr_cli.recipes.export import camera_statistics

    if debias == "stored":
        return StoredStatistics.read(embedder.weights, embedder.size)
    if data is None or not len(data.splits.get("train", ())):
        raise UsageError(
            f"--debias {debias} needs the training images, and their data set is not there. Name one that is "
            "prepared: -d NAME."
        )
    return camera_statistics(embedder, data, debias, progress)


def _crops(data: Dataset | None, size: tuple[int, int]) -> Any:
    """Decode some images from all over a split: uint8 (m, h, w, 3), or None."""
    import numpy as np

    from icsr_cli.images.decode import decode_resized

    splits = [] if data is None else [data.splits.get(name) for name in ("query", "train")]
    split = next((split for split in splits if split is not None and len(split)), None)
    if split is None:
        return None
    rows = np.linspace(0, len(split) - 1, min(_CHECKED_CROPS, len(split))).astype(int)
    try:
        return np.stack([decode_resized(split.root / split.records[row].path, *size) for row in rows])
    except IcsrError:  # the pictures are gone; what is left is the index
        return None


def _show(found: Export) -> None:
    row: dict[str, object] = {
        "images": f"{found.height} x {found.width}",
        "features": found.features,
        "MB": f"{found.bytes / 1e6:.1f}",
    }
    if found.cosine is not None:
        row |= {
            "input": found.input,
            "checked on": f"{found.random_images} random, {found.crops or 'no'} crops",
            "cosine": f"{found.cosine:.6f}",
        }
    print_table("", list(row), [list(row.values())])
    say(f"Written to {found.path} ({found.arch})", whole=True)
    if found.card is not None:
        say(f"Model card: {found.card}", whole=True)
