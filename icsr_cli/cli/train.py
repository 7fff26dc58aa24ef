"""``icsr train``: the stages of a method, one after the other, or one of them."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import QuietProgress, make_progress, print_facts, print_json, print_records, say
from icsr_cli.cli.options import of_machine, of_method, of_run
from icsr_cli.errors import Interrupted, RunError, UsageError
from icsr_cli.progress import Progress

if TYPE_CHECKING:
    from icsr_cli.config.schema import Settings
    from icsr_cli.recipes.training import Workplace
    from icsr_cli.recipes.wish import Wish
    from icsr_cli.runs import RunFolder
    from icsr_cli.types import Dataset

of_schedule = partial(typer.Option, rich_help_panel="Schedule")
#: Those of ``runs``, which --help does not load.
_STAGES = ("cam", "global")
#: What ``--local`` says for tracks; a file of that name has to be given by its full path.
_TRACKS = Path("tracks")
#: Options of one stage: named with another, they would be ignored.
_OF_CAM = ("network", "cameras")
_OF_GLOBAL = ("local", "clusterer", "refine", "normalise", "select", "eval_every")


def train(
    ctx: typer.Context,
    stage: Annotated[
        str | None,
        typer.Argument(
            help="cam: within each camera. global: all cameras together. Left out: what the method says.",
            show_default=False,
            autocompletion=lambda: _STAGES,
        ),
    ] = None,
    run: Annotated[
        Path | None, options.a_run(help="With --resume: the run to go on with; the newest if left out.")
    ] = None,
    dataset: options.DatasetName = None,
    method: options.Method = None,
    arch: options.Arch = None,
    init: Annotated[
        str | None,
        of_method(
            "--init",
            "--weights",
            metavar="[imagenet|none|cam|RUN|FILE]",
            help="Weights to begin from; none is random, cam the shared network of a cam run.",
            autocompletion=complete.beginnings,
        ),
    ] = None,
    download: Annotated[
        bool,
        of_method("--download", envvar="ICSR_DOWNLOAD", help="Fetch ImageNet weights that are not here yet."),
    ] = False,
    network: Annotated[
        Literal["per-camera", "shared"] | None,
        of_method("--network", help="cam: a network per camera, as published, or one."),
    ] = None,
    cameras: Annotated[
        str | None, of_method("--cameras", help="cam: only these, from 0: 0,1,2 or 0-3.")
    ] = None,
    local: Annotated[
        Path | None,
        of_method(
            "--local",
            metavar="[tracks|RUN|FILE]",
            help="global: local labels, a cam run or a file; the newest cam run. Both: tracks.",
        ),
    ] = None,
    normalise: Annotated[
        Literal["none", "centre", "full", "auto"] | None,
        of_method("--normalise", help="global: features per camera, for the labels."),
    ] = None,
    clusterer: options.Clusterer = None,
    refine: options.Refine = None,
    pairs: options.PairsFile = None,
    pairs_labels: options.PairsLabels = None,
    plugin: options.Plugin = None,
    epochs: Annotated[int | None, of_schedule("--epochs", help="Epochs.")] = None,
    iters: Annotated[int | None, of_schedule("--iters", help="Steps per epoch.")] = None,
    batch_size: Annotated[int | None, of_schedule("-b", "--batch-size", help="Images per step.")] = None,
    num_instances: Annotated[
        int | None, of_schedule("--num-instances", help="Images per identity in a batch.")
    ] = None,
    height: Annotated[int | None, of_schedule("--height", help="Height of the images, in pixels.")] = None,
    width: Annotated[int | None, of_schedule("--width", help="Width of the images, in pixels.")] = None,
    lr: Annotated[float | None, of_schedule("--lr", help="Learning rate at the start.")] = None,
    seed: Annotated[int | None, of_schedule("--seed", help="Seed of every random choice.")] = None,
    seeds: Annotated[
        str | None, of_schedule("--seeds", help="Several, one run after the other: 1,2,3.")
    ] = None,
    select: Annotated[
        Literal["last", "silhouette", "test-map"] | None,
        of_schedule("--select", help="Which epoch is best; test-map looks at the test set."),
    ] = None,
    eval_every: Annotated[
        int | None, of_schedule("--eval-every", help="Show the test mAP every so many epochs.")
    ] = None,
    gpus: Annotated[
        str | None, of_machine("--gpus", help="GPUs to train on, a process each: 0,1,2,3.")
    ] = None,
    device: options.Device = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        of_machine("--precision", help="auto: bf16 on a GPU that has it."),
    ] = None,
    sync_bn: Annotated[
        bool | None,
        of_machine("--sync-bn/--no-sync-bn", help="Several processes: BatchNorm over all images."),
    ] = None,
    compile_: Annotated[
        bool | None, of_machine("--compile/--no-compile", help="Train through torch.compile.")
    ] = None,
    resume: Annotated[bool, of_run("--resume", help="Go on after the last finished epoch.")] = False,
    name: Annotated[str | None, of_run("--name", help="Name of the run; else the time.")] = None,
    tensorboard: Annotated[
        bool, of_run("--tensorboard", help="Also write event files for TensorBoard.")
    ] = False,
    config: options.Config = None,
    assignments: options.Assignments = None,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train on a data set: the stages of a method, or the one that is named.

    The cam stage finds reliable labels within each camera; the global stage trains on all cameras together.
    """
    from icsr_cli.recipes.both_stages import begun_by
    from icsr_cli.recipes.distributed import leave
    from icsr_cli.recipes.wish import Wish, resolve
    from icsr_cli.runs.tensorboard import writer_class

    stage, run = _stage_and_run(stage, run, resume)
    given = dict(locals())
    _check_run(run, given)
    if stage is not None:
        _check_options(stage, given, f"icsr train {stage}")
    if download:
        os.environ["ICSR_DOWNLOAD"] = "1"
    if tensorboard:
        writer_class()  # a library that is not there is found out before anything is made
    some_cameras = options.parse_numbers(cameras, "--cameras")
    some_seeds = options.parse_numbers(seeds, "--seeds")
    place = _take_place(device, gpus, data_root, quiet, as_json)
    plugins = place.ranks.together(lambda: options.load_plugins(plugin))
    wish = Wish(
        runs_root,
        method=method,
        config=config,
        config_typed=not options.from_environment(ctx, "config"),
        assignments=tuple(assignments or ()),
        local=None if local == _TRACKS else local,
        cameras=some_cameras and sorted(some_cameras),
        plugins=plugins,
        pairs=pairs,
        pairs_labels=pairs_labels,
        name=name,
        processes=place.ranks.size,
        facts={"tensorboard": True} if tensorboard else {},
    )
    data = place.ranks.together(
        lambda: options.open_dataset(
            _dataset_of(dataset, run, name, runs_root, stage, resume),
            data_root,
            place.progress,
            speaks=quiet and not as_json and place.ranks.leads,
        )
    )
    wishes = list(_each_seed(wish, seed, some_seeds))
    stages: Sequence[str] = [stage] if stage else []
    if resume and stage is None:
        run, stages = place.ranks.from_leader(lambda: begun_by(data, wishes))
    whole = _asked(wish, ("cam", "global"), given)
    stages = stages or place.ranks.from_leader(lambda: resolve(data, whole, Progress()).stages)
    if stage is None and len(stages) == 1:
        _check_options(stages[0], given, f"the one that is trained here, {stages[0]}")
    if len(stages) > 1 and wish.local is not None:
        raise UsageError(
            f"--local {wish.local} is for the global stage alone; here the cam stage makes the local labels. "
            "Leave --local out, or train the one stage: icsr train global."
        )
    for assignment in assignments or ():
        if assignment.partition(".")[0] in {"cam", "global"} - set(stages):
            place.progress.warn(f"--set {assignment} changes nothing: that stage is not trained here.")
    if not resume:  # by the leader: another rank might see what it has begun already
        place.ranks.from_leader(lambda: _check_before(data, wishes, stages, given))
    _train(data, wishes, stages, given, run, place)
    leave()


def _check_before(
    data: Dataset, wishes: Sequence[Wish], stages: Sequence[str], given: Mapping[str, Any]
) -> None:
    """Find what stands against any of the runs before the first one begins."""
    from icsr_cli.recipes.opening import check
    from icsr_cli.runs import check_free

    for own in wishes:
        for each in stages:
            check_free(own.runs_root / data.name / each, own.name)
    whole = _asked(wishes[0], stages, given)
    for each in stages[1:]:
        check(data, each, whole)


def _asked(wish: Wish, stages: Sequence[str], given: Mapping[str, Any]) -> Wish:
    """Give what is asked of all stages: each knows of the others, which --set may reach into."""
    every = {key: value for each in stages for key, value in _options(each, given).items()}
    return replace(wish, options={**wish.options, **every})


def _train(
    data: Dataset,
    wishes: Sequence[Wish],
    stages: Sequence[str],
    given: Mapping[str, Any],
    run: Path | None,
    place: Workplace,
) -> None:
    """Train each stage of each wish, one after another; ``run`` is the first one to go on with, if any is."""
    from icsr_cli.recipes import opening
    from icsr_cli.recipes.both_stages import go_on_or_begin, group_left
    from icsr_cli.recipes.interruption import Stop, stopped

    resume, as_json = given["resume"], given["as_json"]
    found, begun = [], False
    try:
        for own in wishes:
            after, whole = None, _asked(own, stages, given)
            for each in stages:
                asked = replace(whole, after=after, then=None if each == stages[-1] else whole)
                named = None if after else run
                begin = partial(go_on_or_begin, run=named) if resume else opening.start
                made = partial(begin, data, each, asked, progress=place.progress)
                folder, settings = place.ranks.from_leader(made)
                after, begun = folder.path, True
                found.append(_run(each, data, asked, folder, settings, place, as_json))
        if not given["seeds"] and (left := group_left(folder)):
            place.progress.warn(left)
    except (Interrupted, KeyboardInterrupt) as error:
        if not begun:
            raise
        code = error.exit_code if isinstance(error, Interrupted | Stop) else 130
        group = f"--name {wishes[0].facts['group']} " if given["seeds"] and not given["name"] else ""
        raise stopped(code - 128, f"{group}--resume") from error
    finally:  # what is finished is told where the next one is interrupted, or fails
        if as_json and place.ranks.leads and found:
            print_json(found[0] if len(wishes) * len(stages) == 1 else found)


def _stage_and_run(stage: str | None, run: Path | None, resume: bool) -> tuple[str | None, Path | None]:
    """Take the first word for a run where it is one to go on with: its folder says of which stage it is."""
    from icsr_cli.runs import open_run

    if stage is None or stage in _STAGES:
        return stage, run
    if not resume or run is not None:
        raise UsageError(f"{stage} is no stage: icsr train cam, icsr train global, or icsr train for both.")
    found = open_run(Path(stage))
    return found.stage, found.path


def _check_run(run: Path | None, given: Mapping[str, Any]) -> None:
    """Refuse a command that leaves open which run goes on, or says it twice."""
    if run is not None and not given["resume"]:
        raise UsageError(
            f"A run ({run}) is given, but not what to do with it: add --resume to go on with it."
        )
    if given["resume"] and given["seeds"] and (run is not None or not given["name"]):
        raise UsageError("Several seeds go on together by the name of their group: --resume --name GROUP.")
    if run is not None and given["name"]:
        raise UsageError(f"{run} and --name {given['name']} both say which run goes on; give one of them.")


def _check_options(stage: str, given: Mapping[str, Any], what: str) -> None:
    """Refuse options of the other stage, which ``what`` does not train."""
    others = _OF_GLOBAL if stage == "cam" else _OF_CAM
    wrong = [f"--{option.replace('_', '-')}" for option in others if given[option] not in (None, _TRACKS)]
    if stage == "cam" and given["init"] == "cam":
        wrong.append("--init cam")
    if wrong:
        other = "global" if stage == "cam" else "cam"
        raise UsageError(f"{', '.join(wrong)} belongs to the other stage than {what}: icsr train {other}.")


def _options(stage: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings that the command line names, by dotted key."""
    same = ["batch_size", "iters", "epochs", "num_instances", "network" if stage == "cam" else "normalise"]
    of_stage = {"model.arch": "arch", "model.weights": "init", "optimizer.lr": "lr"}
    of_stage |= {key: key for key in same}
    named = {f"{stage}.{key}": given[option] for key, option in of_stage.items()}
    named |= {f"image.{key}": given[key] for key in ("height", "width")}
    named |= {key: given[key] for key in ("precision", "sync_bn", "select", "eval_every")}
    named["compile"] = given["compile_"]
    if given["local"] == _TRACKS:
        named["cam.clusterer" if stage == "cam" else "global.local"] = {"method": "tracks"}
    if stage == "global":
        named |= options.label_methods(given["clusterer"], given["refine"])
    elif given["init"] == "cam":
        named["cam.model.weights"] = None  # what the global stage begins from, where both are trained
    return named


def _each_seed(wish: Wish, seed: int | None, seeds: list[int] | None) -> Iterator[Wish]:
    """Give a wish for each seed; the runs of several are named after the group and the seed."""
    import time

    said = next((one for one in wish.assignments if one.partition("=")[0].strip() == "seed"), None)
    if said and (seeds is not None or seed is not None):
        raise UsageError(
            f"--set {said} and {'--seed' if seeds is None else '--seeds'} say the same; give one of them."
        )
    if seeds is None:
        yield replace(wish, options={} if seed is None else {"seed": seed})
        return
    if seed is not None:
        raise UsageError("--seed and --seeds say the same; give one of them.")
    group = wish.name or time.strftime("%Y%m%d-%H%M%S")
    for each in seeds:
        facts = {**wish.facts, "group": group, "seeds": seeds}
        yield replace(wish, options={"seed": each}, name=f"{group}-seed{each}", facts=facts)


def _run(
    stage: str,
    data: Dataset,
    wish: Wish,
    folder: RunFolder,
    settings: Settings,
    place: Workplace,
    as_json: bool,
) -> dict[str, Any] | None:
    """Train one stage, anew or from where it stopped; show what came of it, or give it for JSON."""
    from icsr_cli.recipes.training import run_cam_stage, run_global_stage

    if stage == "cam":
        table = run_cam_stage(data, settings, folder, place)
        if not place.ranks.leads:
            return None
        # What this command trains itself is not to be typed.
        following = None if wish.then else _after_cam(data, wish, folder, place.data_root)
        return _show_local_labels(folder, table, data, following, as_json)
    network = run_global_stage(data, settings, folder, place)
    words = ("labels", "inspect") if data.untested else ("eval",)
    following = options.typed(*words, folder.path, data_root=place.data_root)
    return _show_global(folder, network.dim, following, as_json) if place.ranks.leads else None


def _after_cam(data: Dataset, wish: Wish, folder: RunFolder, data_root: Path) -> str:
    """Give the command that trains the global stage on what a cam run has found."""
    from icsr_cli.recipes.wish import resolve, uses_local

    typed = partial(options.typed, "train", data_root=data_root, runs_root=wish.runs_root)
    if folder.info().get("then"):
        return typed("--resume", "-d", data.name, "--name", folder.path.name)
    how: list[str | Path] = ["--method", wish.method] if wish.method else []
    if wish.config and wish.config_typed:  # it may say the method, or more of the global stage
        how += ["--config", wish.config, *(word for path, _ in wish.plugins for word in ("--plugin", path))]
    if not uses_local(resolve(data, wish, Progress())):
        how = ["--method", "icsr"]
    return typed("global", "-d", data.name, *how, "--local", folder.path)


def _take_place(
    device: str | None, gpus: str | None, data_root: Path, quiet: bool, as_json: bool
) -> Workplace:
    """Find what this process computes with, and which of several it is; starts them for several ``gpus``.

    Raises:
        typer.Exit: where the work was done by processes that were started here.
    """
    from icsr_cli.recipes.distributed import join, launch
    from icsr_cli.recipes.steps import choose_engine
    from icsr_cli.recipes.training import Workplace

    devices = _devices(device, gpus)
    if len(devices) > 1 and "WORLD_SIZE" not in os.environ:
        _require_gpus(devices)
        raise typer.Exit(launch(len(devices), sys.argv[1:]))
    ranks, own = join(devices)
    choose_engine(own, "fp32")  # a device that is not there is found out before anything is made
    progress = make_progress(quiet, as_json) if ranks.leads else QuietProgress()
    return Workplace(data_root, own, progress, ranks)


def _devices(device: str | None, gpus: str | None) -> list[str]:
    """Give the devices that were named, one for each process; none where the choice is ours."""
    numbers = options.parse_numbers(gpus, "--gpus")
    if numbers is None:
        return [device] if device else []
    if device is not None:
        raise UsageError("--gpus and --device say the same; give one of them.")
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
    dataset: str | None, run: Path | None, name: str | None, runs_root: Path, stage: str | None, resume: bool
) -> str | None:
    """Give the data set that was named, or that of the run to go on with; None for the one prepared last."""
    if dataset is not None or not resume:
        return dataset
    from icsr_cli.runs import find_runs, newest, open_run

    if name is not None and run is None:
        called = [
            one
            for one in find_runs(runs_root, stage=stage)
            if re.fullmatch(re.escape(name) + r"(-seed\d+)?", one.path.name)
        ]
        of = sorted({one.dataset for one in called})
        if len(of) > 1:
            raise UsageError(f"Runs of {' and '.join(of)} are called {name}. Say which with -d.")
        if of:
            return of[0]
    return (open_run(run) if run else newest(runs_root, stage=stage, file="settings.yaml")).dataset


def _show_local_labels(
    folder: RunFolder, table: Any, data: Dataset, following: str | None, as_json: bool
) -> dict[str, Any] | None:
    import numpy as np

    from icsr_cli.metrics import judge

    rows = []
    for camera in sorted(set(table.cameras.tolist())):
        own = table.cameras == camera
        labels = table.labels[own]
        row: dict[str, Any] = {
            "camera": data.camera_names[camera],
            "images": int(own.sum()),
            "clusters": len(np.unique(labels[labels >= 0])),
            "unlabelled": int((labels < 0).sum()),
        }
        if table.has_identities:
            quality = judge(labels, table.identities[own])
            nmi, pairwise_f = (quality.nmi, quality.pairwise_f) if quality else (math.nan, math.nan)
            row |= {"nmi": nmi, "pairwise_f": pairwise_f}
        rows.append(row)
    if as_json:
        return {"run": str(folder.path), "local": str(folder.labels / "local.csv"), "cameras": rows}
    print_records("Local labels", rows)
    say(f"Written to {folder.labels / 'local.csv'}", whole=True)
    if following is not None:
        say(f"Next: {following}", whole=True)
    return None


def _show_global(folder: RunFolder, dim: int, following: str, as_json: bool) -> dict[str, Any] | None:
    epochs = folder.metrics()
    if not epochs:  # of a run that was finished before
        raise RunError(
            f"{folder.path / 'metrics.jsonl'} holds no epoch: it is damaged. The network is whole."
        )
    last = epochs[-1]
    row = {name: value for name, value in last.items() if not isinstance(value, dict)}
    if "refined" in last.get("quality", ()):
        row["nmi"] = last["quality"]["refined"]["nmi"]
    if as_json:
        return {"run": str(folder.path), "features": dim, **row}
    print_facts("Last epoch", row)
    say(f"Network: {folder.path / 'last.safetensors'} ({dim} features)", whole=True)
    if folder.choice:
        say(f"Best: {folder.path / 'best.safetensors'} ({folder.choice})", whole=True)
    say(f"Next: {following}", whole=True)
    return None
