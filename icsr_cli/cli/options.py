"""Options that several commands share, and how they become settings."""

from __future__ import annotations

import os
import shlex
from collections.abc import Container, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from icsr_cli.cli import complete
from icsr_cli.cli.console import message
from icsr_cli.errors import UsageError, counted

if TYPE_CHECKING:
    from icsr_cli.config import Settings
    from icsr_cli.progress import Progress
    from icsr_cli.runs import RunFolder
    from icsr_cli.types import Dataset

#: An option in a group of the help; arguments as of ``typer.Option``.
of_data, of_method, of_run, of_machine, of_output = (
    partial(typer.Option, rich_help_panel=group) for group in ("Data", "Method", "Run", "Machine", "Output")
)

#: A run, or several, and images of a data set or a folder; arguments as of ``typer.Argument``.
a_run, some_images = (
    partial(typer.Argument, autocompletion=offered) for offered in (complete.runs, complete.datasets)
)
#: A data set, where the one prepared last is not the default; arguments as of ``typer.Option``.
a_dataset = partial(typer.Option, "-d", "--dataset", autocompletion=complete.datasets)

#: The method of training; arguments as of ``typer.Option``.
a_method = partial(of_method, "--method", "-m", autocompletion=complete.methods)

DatasetName = Annotated[
    str | None, a_dataset(help="Data set; the one prepared last if left out.", rich_help_panel="Data")
]
NewestOf = Annotated[str | None, a_dataset(help="Take the newest run of this data set.")]
SplitName = Annotated[
    Literal["train", "query", "gallery"] | None,
    typer.Option("--split", help="Of a data set: which images.", show_default="train"),
]
DataRoot = Annotated[
    Path, of_data("--data-root", envvar="ICSR_DATA", help="Folder of the prepared data sets.")
]
RunsRoot = Annotated[Path, of_run("--runs", envvar="ICSR_RUNS", help="Folder of the runs.")]
Config = Annotated[
    Path | None, of_run("--config", envvar="ICSR_CONFIG", help="Settings file (YAML), whole or partial.")
]
Assignments = Annotated[
    list[str] | None,
    of_run("--set", metavar="KEY=VALUE", help="Set any setting, e.g. cam.optimizer.lr=0.001."),
]
Method = Annotated[
    str | None, a_method(help="`icsr methods`; left out: icsr for published data sets, else camera-aware.")
]
Arch = Annotated[
    str | None,
    of_method(
        "-a", "--arch", help="Network, e.g. resnet_ibn50a: `icsr models`.", autocompletion=complete.networks
    ),
]
Clusterer = Annotated[
    str | None,
    of_method(
        "--clusterer",
        "-c",
        metavar="[average-linkage|dbscan|hdbscan|infomap|tracks|NAME]",
        help="What finds the clusters (in training: of the global stage), or a plug-in by its name.",
        autocompletion=complete.clusterers,
    ),
]
Refine = Annotated[
    str | None,
    of_method(
        "--refine",
        metavar="[none|NAME,...]",
        help="Refiners in order: cannot-link, discard, majority, single-camera, split.",
        autocompletion=complete.refiners,
    ),
]
Network = Annotated[
    Path | None,
    typer.Option(
        "--network", "-n", help="Weights or a run; the newest run if left out.", autocompletion=complete.runs
    ),
]
Height = Annotated[
    int | None, typer.Option("--height", min=16, max=2048, help="Height of the images, in pixels.")
]
Width = Annotated[
    int | None, typer.Option("--width", min=16, max=2048, help="Width of the images, in pixels.")
]
Pattern = Annotated[
    str | None,
    typer.Option("--pattern", help="Where a path has its {camera}, and {id} if any, e.g. {camera}_*.jpg."),
]
Debias = Annotated[
    Literal["none", "centre", "full", "stored"],
    typer.Option(
        "--debias",
        help="Take each camera's mean (and spread) off the features; stored: those in the model file.",
    ),
]
Device = Annotated[
    str | None, of_machine("--device", help="cpu, cuda, cuda:1, ...; the first GPU if there is one.")
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"] | None,
    of_machine("--precision", help="That of the run, or auto: bf16 on a GPU that has it."),
]
Plugin = Annotated[
    list[Path] | None,
    of_method("--plugin", metavar="FILE", help="Load a method of your own; it is run. May be repeated."),
]
PairsFile = Annotated[
    Path | None,
    of_method("--pairs", metavar="FILE", help="Pairs that are the same or different, a CSV; labels obey it."),
]
PairsLabels = Annotated[
    Path | None,
    of_method("--pairs-labels", metavar="RUN|FILE", help="Whose clusters cluster:17 in --pairs names."),
]
#: How the names of pages end; one without an ending is a page as well.
PAGES = (".html", ".htm", "")
Quiet = Annotated[bool, of_output("--quiet", "-q", help="No progress, only results and warnings.")]
Json = Annotated[bool, of_output("--json", help="Print JSON and nothing else on standard output.")]


def open_dataset(name: str | None, data_root: Path, progress: Progress, *, speaks: bool = False) -> Dataset:
    """Load the data set, or the one prepared last, and say which one it is.

    ``speaks``: where nobody named it, say it though ``progress`` is quiet.
    """
    from icsr_cli import datasets

    chosen = datasets.newest(data_root) if name is None else name
    dataset = datasets.load(chosen, data_root)
    sizes = ", ".join(f"{len(split):,} {split_name}" for split_name, split in dataset.splits.items())
    suffix = " (prepared last)" if name is None else ""
    tell = message if name is None and speaks else progress.note
    tell(f"Data set: {chosen}{suffix}, {sizes} images, {counted(dataset.n_cameras, 'camera')}")
    return dataset


def named_run(path: Path, dataset: str | None) -> RunFolder:
    """Open the run that was named; a data set that is not its own would be ignored, and is refused."""
    from icsr_cli.runs import open_run

    folder = open_run(path)
    if dataset not in (None, folder.dataset):
        raise UsageError(
            f"{folder.path} is a run of {folder.dataset}, not of {dataset}. Leave -d or the run out."
        )
    return folder


def typed(*words: object, data_root: Path | None = None, runs_root: Path | None = None) -> str:
    """Write a command of ``icsr`` as a shell takes it, with folders that it does not look in by itself."""
    places = (
        ("--data-root", os.environ.get("ICSR_DATA") or "data", data_root),
        ("--runs", os.environ.get("ICSR_RUNS") or "runs", runs_root),
    )
    odd = [(option, folder) for option, usual, folder in places if folder not in (None, Path(usual))]
    return shlex.join(map(str, ("icsr", *words, *chain.from_iterable(odd))))


def settings_of(dataset: str, data_root: Path, **asked: Any) -> Settings:
    """Resolve the settings for a data set that need not be there, if it is published or none of one's own.

    ``asked``: as ``config.load`` takes it.
    """
    from icsr_cli import config, datasets

    possible = {*datasets.available(), "synthetic", "folder"}
    if dataset in possible.difference(datasets.names(data_root)):
        return config.load(dataset, **asked)
    return config.load_for(datasets.load(dataset, data_root), **asked)


def from_environment(ctx: typer.Context, name: str) -> bool:
    """Whether an option's value, by the name of its parameter, comes from the environment."""
    return _source(ctx, name) == "ENVIRONMENT"


def _source(ctx: typer.Context, name: str | None) -> str:
    """Name where an option's value comes from; of some releases the sources are words, of others numbers."""
    source = None if name is None else ctx.get_parameter_source(name)
    return "" if source is None else source.name


def refuse_typed(ctx: typer.Context, names: Container[str], why: str) -> None:
    """Refuse options that stand on the command line and would do nothing; ``names`` are the parameters'.

    What comes from the environment is for other commands too, and stays.
    """
    typed = [
        max(param.opts, key=len)
        for param in ctx.command.params
        if param.name in names and _source(ctx, param.name) == "COMMANDLINE"
    ]
    if typed:
        raise UsageError(f"{why} leave out {', '.join(typed)}.")


def check_out(path: Path, option: str, *suffixes: str, reads: Iterable[Path] = ()) -> None:
    """Refuse a place where no file can be written, before what it is to hold is computed.

    ``suffixes`` are those it may have, any if there are none: a file of another kind is not written over.
    Nor is one of those that the command ``reads``.
    """
    above = next((folder for folder in path.parents if folder.exists()), path)
    if suffixes and path.suffix not in suffixes:
        raise UsageError(f"{option} must end in {' or '.join(filter(None, suffixes))}, got {path}.")
    if path.exists() and not path.is_file():
        raise UsageError(f"{option} {path} is there and is no file. Name another.")
    if path.exists() and (read := [one for one in reads if one.exists() and path.samefile(one)]):
        raise UsageError(f"{option} {path} is {read[0]}, which is read here. Name another.")
    if not above.is_dir():
        raise UsageError(f"{option} {path} cannot be written: {above} is no folder. Name another.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path} cannot be written: {above} may not be changed. Name another.")


def label_methods(clusterer: str | None, refine: str | None) -> dict[str, object]:
    """Give the settings that ``--clusterer`` and ``--refine`` name, by dotted key."""
    return {
        "global.clusterer": clusterer and {"method": clusterer},
        "global.refiners": None if refine is None else [] if refine == "none" else refine.split(","),
    }


def load_plugins(plugins: list[Path] | None) -> list[tuple[str, str]]:
    """Run the files that the command line names; gives the path and SHA-256 of each."""
    from icsr_cli.choices import load_plugin

    names = [path.stem for path in plugins or ()]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"Two plug-ins are called {twice[0]}, and a method goes by its file's name.")
    return [(str(path), load_plugin(path)) for path in plugins or ()]


def parse_numbers(text: str | None, option: str) -> list[int] | None:
    """Read ``0,1,2`` (ranges such as ``0-3`` too), each number once; None stays None."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"{option} takes numbers such as 0,1,2 or 0-3; got {text!r}.")
        if len(first) > 6 or len(last) > 6 or (dash and int(last) < int(first)):
            raise UsageError(f"{option} takes rising numbers such as 0,1,2 or 0-3; got {text!r}.")
        numbers.extend(range(int(first), int(last if dash else first) + 1))
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{option} {text} names a number twice.")
    return numbers
