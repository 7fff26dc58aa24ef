"""``icsr methods``: the methods that can be named by ``--method``, and the settings each resolves to."""

from __future__ import annotations

from typing import Annotated

import typer

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import print_json, print_table


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Print its settings, whole, as a file to copy and change.", autocompletion=complete.methods
        ),
    ] = None,
    dataset: Annotated[
        str, typer.Option("-d", "--dataset", help="For a published data set, synthetic, or own crops.")
    ] = "folder",
    config: options.Config = None,
    assignments: options.Assignments = None,
    as_json: options.Json = False,
) -> None:
    """List the methods of training; or print the settings of one.

    Example: icsr methods icsr -d market1501 > mine.yaml, then icsr train -d market1501 --config mine.yaml
    """
    import yaml

    from icsr_cli import config as settings

    if name is None:
        found = settings.methods()
        if as_json:
            print_json(found)
            return
        print_table("Methods (icsr train --method NAME)", ["method", "what it is"], list(found.items()))
        return
    chosen = settings.load(dataset, method=name, config=config, assignments=assignments or ()).dump()
    del chosen["dataset"]
    if as_json:
        print_json(chosen)
    else:
        typer.echo(yaml.safe_dump(chosen, sort_keys=False), nl=False)
