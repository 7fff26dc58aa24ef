"""``icsr train cam`` and ``icsr train global``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icsr_cli.cli.options import (
    Assignments,
    Config,
    DataRoot,
    DatasetName,
    Device,
    Json,
    Quiet,
    RunsRoot,
    check_clustering,
    open_dataset,
    parse_numbers,
    resolve_settings,
)
from icsr_cli.errors import UsageError

if TYPE_CHECKING:
    from icsr_cli.config.schema import Settings
    from icsr_cli.progress import Progress
    from icsr_cli.recipes.training import Workplace
    from icsr_cli.runs import RunFolder
    from icsr_cli.types import Dataset

app = typer.Typer(
    no_args_is_help=True,
    help="Train: first each camera on its own (cam), then all cameras together (global).",
)

Run = Annotated[
    Path | None, typer.Argument(help="With --resume: the run to go on with; the newest if left out.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on after the last finished epoch of a run.")]
Arch = Annotated[str | None, typer.Option("-a", "--arch", help="Network, e.g. resnet50, resnet_ibn50a.")]
Batch = Annotated[int | None, typer.Option("-b", "--batch-size", help="Images per step.")]
Iters = Annotated[int | None, typer.Option("--iters", help="Steps per epoch.")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Epochs.")]
Instances = Annotated[int | None, typer.Option("--num-instances", help="Images per identity in a batch.")]
Height = Annotated[int | None, typer.Option("--height", help="Height of the images, in pixels.")]
Width = Annotated[int | None, typer.Option("--width", help="Width of the images, in pixels.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate at the start.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random choice.")]
Precision = Annotated[str | None, typer.Option("--precision", help="auto, fp32 or bf16.")]
SyncBn = Annotated[
    bool | None,
    typer.Option("--sync-bn/--no-sync-bn", help="With several processes: BatchNorm over all their images."),
]
Compile = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="Train the network through torch.compile.")
]
Gpus = Annotated[
    str | None, typer.Option("--gpus", help="Numbers of the GPUs to train on, e.g. 0,1,2,3: a process each.")
]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Also write event files for TensorBoard.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run; the time if left out.")]


@app.command(
    epilog="Example: icsr train cam -d market1501 -a resnet50 -b 64 --iters 100 --num-instances 4",
)
def cam(
    run: Run = None,
    dataset: DatasetName = None,
    arch: Arch = None,
    batch_size: Batch = None,
    iters: Iters = None,
    epochs: Epochs = None,
    num_instances: Instances = None,
    height: Height = None,
    width: Width = None,
    lr: LearningRate = None,
    network: Annotated[
        str | None,
        typer.Option("--network", help="per-camera (as published) or shared (one network for all cameras)."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", "--weights", help="imagenet, none (random), or a file of weights."),
    ] = None,
    cameras: Annotated[
        str | None,
        typer.Option("--cameras", help="Only these cameras, from 0: 0,1,2 or 0-3."),
    ] = None,
    gpus: Gpus = None,
    device: Device = None,
    precision: Precision = None,
    sync_bn: SyncBn = None,
    compile_: Compile = None,
    seed: Seed = None,
    resume: Resume = False,
    tensorboard: Tensorboard = False,
    name: Name = None,
    config: Config = None,
    assignments: Assignments = None,
    data_root: DataRoot = Path("data"),
    runs_root: RunsRoot = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train within each camera and keep the best local labels of every camera, in one call."""
    from icsr_cli.recipes.distributed import leave
    from icsr_cli.recipes.training import run_cam_stage

    place = _take_place(device, gpus, data_root, quiet, as_json)
    ranks, progress = place.ranks, place.progress
    if tensorboard:
        _require_tensorboard()
    data = open_dataset(_dataset_of(dataset, run, runs_root, "cam", resume), data_root, progress)
    options = _stage_options(
        "cam",
        model__arch=arch,
        model__weights=init,
        batch_size=batch_size,
        iters=iters,
        epochs=epochs,
        num_instances=num_instances,
        optimizer__lr=lr,
        network=network,
    ) | _shared_options(height, width, seed, precision, sync_bn, compile_)
    folder, settings = ranks.from_leader(
        lambda: _open_run(
            data,
            "cam",
            run,
            resume,
            name,
            runs_root,
            config,
            options,
            assignments,
            progress,
            tensorboard,
            cameras=parse_numbers(cameras, "--cameras"),
        )
    )
    table = run_cam_stage(data, settings, folder, place, cameras=folder.info().get("cameras"))
    leave()
    if ranks.leads:
        _show_local_labels(folder, table, as_json)


@app.command(
    "global",
    epilog="Example: icsr train global -d market1501 -a resnet_ibn50a -b 64 --iters 200",
)
def global_(
    run: Run = None,
    dataset: DatasetName = None,
    arch: Arch = None,
    batch_size: Batch = None,
    iters: Iters = None,
    epochs: Epochs = None,
    num_instances: Instances = None,
    height: Height = None,
    width: Width = None,
    lr: LearningRate = None,
    local: Annotated[
        Path | None,
        typer.Option("--local", help="A cam run or a label file; the newest cam run if left out."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", "--weights", help="imagenet, none, cam (the shared network), or a file."),
    ] = None,
    clusterer: Annotated[
        str | None,
        typer.Option("--clusterer", help="average-linkage, dbscan or infomap."),
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option("--refine", help="discard (as published), split, or none (the plain baseline)."),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option("--select", help="Best epoch: last, silhouette, or test-map (looks at the test set)."),
    ] = None,
    gpus: Gpus = None,
    device: Device = None,
    precision: Precision = None,
    sync_bn: SyncBn = None,
    compile_: Compile = None,
    seed: Seed = None,
    resume: Resume = False,
    tensorboard: Tensorboard = False,
    name: Name = None,
    config: Config = None,
    assignments: Assignments = None,
    data_root: DataRoot = Path("data"),
    runs_root: RunsRoot = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train on all cameras together; local labels throw wrong images out of the global clusters."""
    from icsr_cli.recipes.distributed import leave
    from icsr_cli.recipes.training import run_global_stage

    place = _take_place(device, gpus, data_root, quiet, as_json)
    ranks, progress = place.ranks, place.progress
    if tensorboard:
        _require_tensorboard()
    data = open_dataset(_dataset_of(dataset, run, runs_root, "global", resume), data_root, progress)
    options = _stage_options(
        "global",
        model__arch=arch,
        model__weights=init,
        batch_size=batch_size,
        iters=iters,
        epochs=epochs,
        num_instances=num_instances,
        optimizer__lr=lr,
        clustering__method=clusterer,
        refinement__method=refine,
    ) | _shared_options(height, width, seed, precision, sync_bn, compile_)
    if clusterer is not None:
        # Options of the settings file belong to the clusterer it names.
        options["global.clustering.options"] = {}
    if select is not None:
        options["select"] = select
    folder, settings = ranks.from_leader(
        lambda: _open_run(
            data,
            "global",
            run,
            resume,
            name,
            runs_root,
            config,
            options,
            assignments,
            progress,
            tensorboard,
            local=local,
        )
    )
    network = run_global_stage(data, settings, folder, place, local=_local_of(folder))
    leave()
    if ranks.leads:
        _show_global(folder, network.dim, as_json)


def _require_tensorboard() -> None:
    from icsr_cli.runs.tensorboard import writer_class

    writer_class()


def _stage_options(stage: str, **values: Any) -> dict[str, Any]:
    return {f"{stage}.{key.replace('__', '.')}": value for key, value in values.items() if value is not None}


def _shared_options(
    height: int | None,
    width: int | None,
    seed: int | None,
    precision: str | None,
    sync_bn: bool | None,
    compile_: bool | None,
) -> dict[str, Any]:
    named = {
        "image.height": height,
        "image.width": width,
        "seed": seed,
        "precision": precision,
        "sync_bn": sync_bn,
        "compile": compile_,
    }
    return {key: value for key, value in named.items() if value is not None}


def _take_place(
    device: str | None, gpus: str | None, data_root: Path, quiet: bool, as_json: bool
) -> Workplace:
    """Find what this process computes with, and which of several it is; starts them for several ``gpus``.

    Raises:
        typer.Exit: where the work was done by processes that were started here.
    """
    from icsr_cli.cli.console import QuietProgress, make_progress
    from icsr_cli.recipes.distributed import join, launch
    from icsr_cli.recipes.training import Workplace

    devices = _devices(device, gpus)
    if len(devices) > 1 and "WORLD_SIZE" not in os.environ:
        _require_gpus(devices)
        raise typer.Exit(launch(len(devices), sys.argv[1:]))
    ranks, own = join(devices)
    progress = make_progress(quiet, as_json) if ranks.leads else QuietProgress()
    return Workplace(data_root, own, progress, ranks)


def _devices(device: str | None, gpus: str | None) -> list[str]:
    """Give the devices that were named, one for each process; none where the choice is ours."""
    numbers = parse_numbers(gpus, "--gpus")
    if numbers is None:
        return [device] if device else []
    if device is not None:
        raise UsageError("--gpus and --device say the same; give one of them.")
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--gpus {gpus} names a GPU twice; each process needs its own.")
    return [f"cuda:{number}" for number in numbers]


def _require_gpus(devices: list[str]) -> None:
    import torch

    there = torch.cuda.device_count()
    missing = [device for device in devices if int(device.removeprefix("cuda:")) >= there]
    if missing:
        raise UsageError(
            f"There is no {' and no '.join(missing)}: torch sees {there} GPUs here. `icsr doctor` says more."
        )


def _dataset_of(
    dataset: str | None, run: Path | None, runs_root: Path, stage: str, resume: bool
) -> str | None:
    """Give the data set that was named, or that of the run to go on with; None for the one prepared last."""
    if run is not None and not resume:
        raise UsageError(
            f"A run ({run}) is given, but not what to do with it: add --resume to go on with it."
        )
    if dataset is not None or not resume:
        return dataset
    from icsr_cli.runs import newest, open_run

    return (open_run(run) if run else newest(runs_root, stage=stage, file="settings.yaml")).dataset


def _open_run(
    data: Dataset,
    stage: str,
    run: Path | None,
    resume: bool,
    name: str | None,
    runs_root: Path,
    config: Path | None,
    options: dict[str, Any],
    assignments: list[str] | None,
    progress: Progress,
    tensorboard: bool,
    *,
    local: Path | None = None,
    cameras: list[int] | None = None,
) -> tuple[RunFolder, Settings]:
    """Make the run folder of a new run, or find the one to go on with; settings come with it."""
    from icsr_cli import config as settings_files
    from icsr_cli.recipes.training import check_same_settings
    from icsr_cli.runs import create, newest, open_run

    if resume:
        if run is None and name is not None:
            run = runs_root / data.name / stage / name
        folder = open_run(run) if run else newest(runs_root, data.name, stage, file="settings.yaml")
        if folder.stage != stage or folder.dataset != data.name:
            raise UsageError(
                f"{folder.path} is a {folder.stage} run of {folder.dataset}, not "
                f"a {stage} run of {data.name}."
            )
        _check_same_inputs(folder, runs_root, local, cameras, options)
        base = config or folder.path / "settings.yaml"
        settings = settings_files.load(data.name, config=base, options=options, assignments=assignments or ())
        check_same_settings(folder, settings.dump())
        if tensorboard:
            folder.update_info(tensorboard=True)
        progress.note(f"Going on with {folder.path}")
        return folder, settings
    settings = resolve_settings(data, config, options, assignments)
    check_clustering(settings)
    facts, settings = _stage_inputs(data, stage, settings, runs_root, local)
    folder = create(runs_root, data.name, stage, name=name)
    if tensorboard:
        facts["tensorboard"] = True
    if stage == "cam":
        facts["cameras"] = cameras
    folder.update_info(**facts)
    folder.write_settings(settings.dump())  # last: a run that has its settings can be gone on with
    progress.note(f"Run: {folder.path}")
    return folder, settings


def _check_same_inputs(
    folder: RunFolder,
    runs_root: Path,
    local: Path | None,
    cameras: list[int] | None,
    options: dict[str, Any],
) -> None:
    """Hold what is not among the settings against the run: local labels, cameras, where --init cam led."""
    from icsr_cli.recipes.training import find_local

    before = folder.info()
    if local is not None and str(find_local(local, runs_root, folder.dataset)) != before.get("local"):
        raise UsageError(
            f"The run {folder.path} was started with the local labels {before.get('local')}, not with "
            f"those of {local}. Leave --local out, or start a new run without --resume."
        )
    if cameras is not None and cameras != before.get("cameras"):
        raise UsageError(
            f"The run {folder.path} was started with the cameras "
            f"{before.get('cameras') or 'of the whole data set'}, not with {cameras}. Leave --cameras out, "
            "or start a new run without --resume."
        )
    if options.get("global.model.weights") == "cam" and before.get("init") == "cam":
        del options["global.model.weights"]  # the settings hold the file that was found then


def _stage_inputs(
    data: Dataset, stage: str, settings: Settings, runs_root: Path, local: Path | None
) -> tuple[dict[str, Any], Settings]:
    """Find the local labels and weights a global run starts from, before its folder is made."""
    from icsr_cli.recipes.training import find_local, start_from_cam

    if stage == "cam":
        return {}, settings
    own = settings.global_
    facts: dict[str, Any] = {"local": None}
    source = None
    if own.refinement.method != "none" or own.model.weights == "cam":
        source = find_local(local, runs_root, data.name)
    if own.refinement.method != "none":
        facts["local"] = str(source)
    if own.model.weights == "cam" and source is not None:
        facts["init"] = "cam"
        settings = start_from_cam(settings, source)
    return facts, settings


def _local_of(folder: RunFolder) -> Path | None:
    local = folder.info().get("local")
    return Path(local) if local else None


def _show_local_labels(folder: RunFolder, table: Any, as_json: bool) -> None:
    import numpy as np

    from icsr_cli.cli.console import print_json, print_table
    from icsr_cli.metrics import judge

    rows = []
    for camera in sorted(set(table.cameras.tolist())):
        own = table.cameras == camera
        labels = table.labels[own]
        row: dict[str, Any] = {
            "camera": camera,
            "images": int(own.sum()),
            "clusters": len(np.unique(labels[labels >= 0])),
            "unlabelled": int((labels < 0).sum()),
        }
        if table.has_identities:
            quality = judge(labels, table.identities[own])
            row |= {
                "NMI": quality.nmi if quality else float("nan"),
                "pairwise F": quality.pairwise_f if quality else float("nan"),
            }
        rows.append(row)
    if as_json:
        print_json({"run": str(folder.path), "local": str(folder.labels / "local.csv"), "cameras": rows})
        return
    print_table("Local labels", list(rows[0]), [list(row.values()) for row in rows])
    from icsr_cli.cli.console import output

    output().print(f"Written to {folder.labels / 'local.csv'}\nNext: icsr train global -d {folder.dataset}")


def _show_global(folder: RunFolder, dim: int, as_json: bool) -> None:
    from icsr_cli.cli.console import output, print_json, print_table

    last = folder.metrics()[-1]
    keys = ("epoch", "loss", "clusters", "kept", "discarded", "noise", "silhouette")
    row = {key: last[key] for key in keys}
    if "refined" in last.get("quality", ()):
        row["NMI"] = last["quality"]["refined"]["nmi"]
    if as_json:
        print_json({"run": str(folder.path), "features": dim, **row})
        return
    print_table("Last epoch", list(row), [list(row.values())])
    output().print(
        f"Network: {folder.path / 'last.safetensors'} ({dim} features)\nNext: icsr eval -d {folder.dataset}"
    )
