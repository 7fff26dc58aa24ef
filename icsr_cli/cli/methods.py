"""``icsr methods``: the methods that can be named by ``--method``, and the settings each resolves to."""

from pathlib import Path
from typing import Annotated

import typer

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import print_json, print_table, say


def methods(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="Print its settings, whole, as a file to copy and change.", autocompletion=complete.methods
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
    as_json: options.Json = False,
) -> None:
    """List the methods of training; or print the settings of one.

    Example: icsr methods icsr -d market1501 > mine.yaml, then icsr train -d market1501 --config mine.yaml
    """
    from icsr_cli import config as settings
    from icsr_cli.plain_yaml import format_yaml

    if name is None:
        given = ("dataset", "config", "assignments")
        options.refuse_typed(ctx, given, "Settings go with a method, as in icsr methods icsr -d market1501;")
        found = settings.methods()
        if as_json:
            print_json(found)
            return
        print_table("Methods (icsr train --method NAME)", ["method", "what it is"], list(found.items()))
        say("Left out: icsr for published data sets, camera-aware for own crops and synthetic data.")
        return
    own = {"method": name, "config": config, "assignments": assignments or ()}
    chosen = options.settings_of("folder" if dataset is None else dataset, data_root, **own).dump()
    del chosen["dataset"]
    if as_json:
        print_json(chosen)
    else:
        typer.echo(format_yaml(chosen), nl=False)
