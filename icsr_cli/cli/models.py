"""``icsr models``: the networks, how large they are, and where weights of them are to be had."""

from pathlib import Path
from typing import Annotated

import typer

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import make_progress, print_json, print_table, say


def models(
    archs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARCH]...",
            help="These only, timm:NAME too; if left out all of our own and some of timm's.",
            autocompletion=complete.networks,
        ),
    ] = None,
    dataset: Annotated[str, options.a_dataset(help="At the size of its images.")] = "folder",
    height: options.Height = None,
    width: options.Width = None,
    data_root: options.DataRoot = Path("data"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """List networks: parameters, multiply-adds per image, paper, licence and place of weights.

    Nothing is downloaded. Any backbone of timm is a network, as timm:NAME.
    """
    from icsr_cli.errors import InputError, UsageError
    from icsr_cli.recipes.networks import Weights, facts, names

    image = options.settings_of(dataset, data_root).image
    try:
        size = height or image.height, width or image.width
        chosen, found = archs or names(), []
        with make_progress(quiet, as_json).task("Networks", len(chosen)) as task:
            for arch in chosen:
                found.append(facts(arch, *size))
                task.advance()
    except InputError as error:
        raise UsageError(str(error)) from None
    if as_json:
        print_json(found)
        return
    rows = [
        [one.arch, one.features, f"{one.parameters / 1e6:.2f}", f"{one.multiply_adds / 1e6:,.0f}"]
        for one in found
    ]
    columns = ["architecture", "features", "M param.", "M mult."]
    print_table("Networks (icsr train -a ARCH)", columns, rows)
    sizes = ", ".join(dict.fromkeys(f"{one.height} x {one.width}" for one in found))
    say(f"In millions: parameters, and multiply-adds for an image of {sizes}.")
    papers: dict[str, list[str]] = {}
    places: dict[Weights, list[str]] = {}
    for one in found:
        if one.paper:
            papers.setdefault(one.paper, []).append(one.arch)
        for weights in one.weights:
            places.setdefault(weights, []).append(one.arch)
    if papers:
        say("\nPapers:")
    for paper, described in papers.items():
        say(f"- {paper}: {', '.join(described)}")
    if places:
        say("\nWeights: trained on, licence, networks, and where they are to be had")
    for weights, trained in places.items():
        say(f"- {weights.trained_on}, {weights.licence}: {', '.join(trained)}")
        say(f"  {weights.address}", whole=True)
