"""``icsr report``: a run as one self-contained page."""

from pathlib import Path
from typing import Annotated

import typer

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import make_progress, print_json


def report(
    ctx: typer.Context,
    runs: Annotated[
        list[Path] | None,
        options.a_run(
            metavar="[RUN]...", help="A run (several for a page of several); the newest one if left out."
        ),
    ] = None,
    page: Annotated[
        str, typer.Option("--page", help="Which page to write.", autocompletion=complete.pages)
    ] = "run",
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write; report.html in the run if left out.")
    ] = None,
    dataset: Annotated[
        str | None, options.a_dataset(help="Data set; the one the run was trained on if left out.")
    ] = None,
    rankings: Annotated[
        int, typer.Option("--rankings", min=0, help="Best, worst and random queries to show, of each.")
    ] = 4,
    draw_map: Annotated[
        bool, typer.Option("--map/--no-map", help="Draw a map of the embedding (t-SNE).")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random queries and the map.")] = 1,
    device: options.Device = None,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write one HTML page about a run: settings, curves, retrieval, rankings, a map, times.

    The page holds everything itself, pictures too, and loads nothing from anywhere.
    """
    from icsr_cli.files import write_text
    from icsr_cli.reports import pages
    from icsr_cli.reports.view import View
    from icsr_cli.runs import newest, open_run

    chosen = pages.find(page)
    unused = {"rankings", "draw_map", "seed", "device"} | ({"dataset"} if runs else set())
    unused -= set(getattr(chosen, "TAKES", ()))
    options.refuse_typed(ctx, unused, f"The page {page!r} would be the same;")
    if out is not None:
        options.check_out(out, "--out", *options.PAGES)
    folders = [open_run(run) for run in runs or ()] or [newest(runs_root, dataset, file="settings.yaml")]
    progress = make_progress(quiet, as_json)
    view = View(tuple(folders), data_root, dataset, device, progress, rankings, draw_map, seed)
    path = out or folders[0].path / ("report.html" if page == "run" else f"{page}.html")
    options.check_out(path, "--out")  # the run's own folder perhaps may not be changed
    write_text(path, chosen.page(view))
    if as_json:
        print_json({"run": str(folders[0].path), "report": str(path), **view.facts})
    else:
        typer.echo(str(path))
