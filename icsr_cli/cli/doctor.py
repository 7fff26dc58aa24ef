"""``icsr doctor``: what is installed, what the machine is, what will be slow and why."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icsr_cli.cli import options
from icsr_cli.cli.console import print_json, print_table, say
from icsr_cli.errors import counted

if TYPE_CHECKING:
    from icsr_cli.recipes.diagnosis import Diagnosis
    from icsr_cli.recipes.machine import Machine
    from icsr_cli.recipes.plan import Schedule

#: What a state is called, and its colour.
_MARKS = {
    "ok": ("ok", "green"),
    "warning": ("look", "yellow"),
    "optional": ("not installed", "dim"),
    "bad": ("missing or broken", "red"),
}
_TITLES = {
    "bad": "Has to be mended",
    "warning": "Good to know",
    "optional": "Not installed, not needed for the main job",
}
of_plan = partial(typer.Option, rich_help_panel="A plan")


def doctor(
    ctx: typer.Context,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    as_json: options.Json = False,
    plan: Annotated[bool, of_plan("--plan", help="Estimate a run: time, memory, what binds.")] = False,
    dataset: options.DatasetName = None,
    gpus: Annotated[int | None, of_plan("--gpus", help="How many; left out: one, or the CPU.")] = None,
    gpu: Annotated[
        str | None,
        of_plan(
            "--gpu",
            metavar="[t4|v100|rtx3090|rtx4090|l4|a100|h100|h200]",
            help="Which; that of this machine if left out, else a100.",
        ),
    ] = None,
    method: options.Method = None,
    arch: options.Arch = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    plugin: options.Plugin = None,
) -> None:
    """Look at what is installed, GPUs, memory and room, and say what will be slow and why.

    The exit code is 1 if something that is needed is missing or broken. Nothing is downloaded or written.
    With --plan: how long a run will take, here or on GPUs that you have not got yet.
    """
    from icsr_cli.recipes.diagnosis import diagnose

    if plan:
        from icsr_cli.recipes.plan import answer

        options.load_plugins(plugin)
        own = {
            "options": {"cam.model.arch": arch, "global.model.arch": arch},
            "assignments": assignments or (),
        }
        found_plan = answer(dataset, data_root, gpus, gpu, method=method, config=config, **own)
        print_json(found_plan.as_dict()) if as_json else _show_plan(
            found_plan, " (prepared last)" if dataset is None else ""
        )
        return
    planned = ("dataset", "gpus", "gpu", "method", "arch", "config", "assignments", "plugin")
    options.refuse_typed(ctx, planned, "A plan is not asked for: add --plan, or")
    found = diagnose(data_root, runs_root)
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)
    if not found.healthy:
        raise typer.Exit(1)


def _show(found: Diagnosis) -> None:
    from rich.text import Text

    print_table("", ["machine", "found"], _machine(found.machine))
    libraries = [
        [
            one.name,
            one.version or "",
            f"{one.wanted} for {one.extra}" if one.extra else one.wanted,
            Text(*_MARKS[one.state]),
        ]
        for one in found.libraries
    ]
    print_table("Libraries", ["library", "version", "needed", "state"], libraries)
    folders = [
        [one.purpose, str(one.path), _gigabytes(one.free), Text(*_MARKS[one.state])] for one in found.folders
    ]
    print_table("Folders", ["for", "folder", "free", "state"], folders)
    there = [item.arch for item in found.weights if item.present]
    say(f"ImageNet weights on this machine: {', '.join(there) or 'none'}")
    _show_advice(found)


def _show_advice(found: Diagnosis) -> None:
    lines = [(library.state, library.name, library.advice) for library in found.libraries]
    lines += [(one.state, f"{one.purpose} ({one.path})", one.advice) for one in found.folders]
    lines += [(one.state, one.what, one.advice) for one in found.findings]
    for state, title in _TITLES.items():
        chosen = [(what, advice) for of, what, advice in lines if of == state and advice]
        if chosen:
            say(f"\n{title}", style=f"bold {_MARKS[state][1]}")
        for what, advice in chosen:
            say(f"- {what}\n  {advice}", whole=True)
    if found.healthy:
        say("\nEverything that is needed is there.", style="green")


def _machine(machine: Machine) -> list[tuple[str, str]]:
    rows = [
        ("Python", machine.python),
        ("system", machine.platform),
        ("processor", f"{machine.processor}, {machine.cpus} usable cores"),
        ("memory", f"{_gigabytes(machine.memory)}, {_gigabytes(machine.memory_free)} free"),
    ]
    rows += [
        (
            f"GPU {number}",
            f"{gpu.name}, {_gigabytes(gpu.memory)}, {_gigabytes(gpu.free)} free, compute {gpu.capability}",
        )
        for number, gpu in enumerate(machine.gpus)
    ]
    if not machine.gpus:
        rows.append(("GPUs", "none that torch can use"))
    rows += [
        ("driver", f"NVIDIA {machine.driver}" if machine.driver else "none of NVIDIA"),
        ("CUDA of torch", machine.cuda or "none"),
        ("GPUs of faiss", "unknown" if machine.faiss_gpus is None else str(machine.faiss_gpus)),
        ("numba threads", str(machine.numba_threads or "unknown")),
    ]
    return rows


def _gigabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.1f} GB"


def _show_plan(found: Schedule, suffix: str) -> None:
    """Print the estimate of a run as tables; ``suffix`` says how its data set was found."""
    from icsr_cli.reports.page import duration

    where = found.rates.name if found.devices == 1 else f"{found.devices} x {found.rates.name}"
    trained = f"{counted(found.images, 'training image')} under {counted(found.cameras, 'camera')}"
    say(f"{found.dataset}{suffix}: {trained}, on {where}; estimated.")
    rows = []
    for stage in found.stages:
        parts = [f"{stage.parts[part].seconds:.2f}" for part in ("extraction", "labels", "training")]
        memory = f"{sum(stage.memory.values()) / 1e9:.1f}"
        rows.append([stage.name, *parts, memory, duration(stage.seconds), stage.binds])
    columns = ["stage", "extraction, s", "labels, s", "training, s", "memory, GB", "in all", "what binds"]
    print_table("An epoch of one network, and the stage", columns, rows)
    rows = [
        [stage.name, use, f"{count / 1e9:.2f}"]
        for stage in found.stages
        for use, count in stage.memory.items()
    ]
    print_table("Memory of each device", ["stage", "for", "GB"], rows)
    if len(found.stages) > 1:
        say(f"All stages: {duration(found.seconds)}")
    if not found.fits:
        say(
            f"That is more than the {found.rates.memory / 1e9:.0f} GB there are: take a smaller batch, "
            "smaller images or more devices."
        )
