"""``icsr methods``: the methods of training, the parts they are made of, and the settings of each."""

import inspect
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import heading, print_json, print_table, say
from icsr_cli.errors import UsageError, did_you_mean
from icsr_cli.plain_yaml import format_yaml


def methods(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A method: print its settings, whole, as a file to copy and change. A part: its options.",
            autocompletion=complete.methods_and_parts,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        options.a_dataset(
            help="For a data set: a published one, synthetic, one that is prepared; folder: own crops.",
            show_default="folder",
        ),
    ] = None,
    data_root: options.DataRoot = Path("data"),
    config: options.Config = None,
    assignments: options.Assignments = None,
    plugin: options.Plugin = None,
    as_json: options.Json = False,
) -> None:
    """List the methods of training and their parts; or print the settings of a method, the options of a part.

    Example: icsr methods icsr -d market1501 > mine.yaml, then icsr train -d market1501 --config mine.yaml
    """
    from icsr_cli import choices
    from icsr_cli import config as settings

    options.load_plugins(plugin)
    known = settings.methods()
    rooms = [room for room in choices.ROOMS if name in choices.available(room)]
    if name not in known:
        given = ("dataset", "config", "assignments")
        options.refuse_typed(ctx, given, "Settings go with a method, as in icsr methods icsr -d market1501;")
        if name is None:
            _list(as_json)
        else:
            _describe(name, rooms, as_json)
        return
    own: dict[str, Any] = {"method": name, "config": config, "assignments": assignments or ()}
    chosen = options.settings_of("folder" if dataset is None else dataset, data_root, **own).dump()
    del chosen["dataset"]
    if as_json:
        print_json(chosen)
    else:
        typer.echo(format_yaml(chosen), nl=False)


def _list(as_json: bool) -> None:
    from icsr_cli import choices
    from icsr_cli import config as settings

    found = settings.methods()
    parts = {room: {name: _summary(room, name) for name in choices.available(room)} for room in choices.ROOMS}
    if as_json:
        print_json({"methods": found, **parts})
        return
    rows = []
    for name, method in found.items():
        rows += [[name, method.about], ["", f"Worth: {method.worth}"], ["", f"Cost: {method.cost}"]]
    print_table("Methods (icsr train --method NAME)", ["method", "what it is"], rows)
    say("Left out: icsr for published data sets, camera-aware for own crops and synthetic data.")
    say("Worlds: icsr prepare synthetic --preset. How worth and cost were measured: docs/results.md.\n")
    rows = []
    for room, names in parts.items():
        rows += [["" if rank else room, *part] for rank, part in enumerate(names.items())]
    print_table("Parts (icsr methods NAME: options)", ["of", "part", "what it is"], rows)


def _summary(room: str, name: str) -> str:
    """Give the first sentence of what a part says of itself, with the papers that it names."""
    from icsr_cli import choices

    said = choices.about(room, name)
    first = " ".join(said.partition("\n\n")[0].split())
    papers = [paper for paper in re.findall(r"\b\d{4}\.\d{5}\b", said) if paper not in first]
    return f"{first} arXiv {', '.join(dict.fromkeys(papers))}." if papers else first


def _describe(name: str, rooms: list[str], as_json: bool) -> None:
    """Print what is called ``name`` in these rooms: one, but for plug-ins; UsageError where there is none."""
    if not rooms:
        hint = did_you_mean(name, complete.methods_and_parts())
        raise UsageError(f"There is no method and no part {name!r}; icsr methods lists them.{hint}")
    found = {room: _facts(room, name) for room in rooms}
    if as_json:
        print_json(found)
        return
    for room, facts in found.items():
        heading(f"{name}, of the {room}")
        say(f"\n{_flowing(facts['about'])}\n")
        if facts["needs"]:
            say(f"Beside features it reads: {', '.join(facts['needs'])}.\n")
        if facts["options"]:
            heading("Its options, and what they are where they are left out")
            say(f"\n{_flowing(facts['meaning'])}\n")
            say(format_yaml(facts["options"]))


def _flowing(text: str) -> str:
    """Join the lines of each paragraph: the terminal is of another width."""
    return re.sub(r"(?<!\n)\n(?![\n -])", " ", text)


def _facts(room: str, name: str) -> dict[str, Any]:
    """Give what a part says of itself, what it reads beside features, and its options with their defaults."""
    from icsr_cli import choices

    kind = choices.find(room, name).Options
    own = kind.__mro__[: kind.__mro__.index(choices.Options)]
    usual = kind.model_construct()  # whole by itself or not: average-linkage wants one of its options
    return {
        "about": choices.about(room, name),
        "needs": sorted(usual.needs),
        "meaning": "\n\n".join(inspect.cleandoc(each.__doc__ or "") for each in own).replace("``", "`"),
        "options": usual.model_dump(mode="json"),
    }
