"""``icsr assign``: new images to the clusters of a run, or to somebody new."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import make_progress, print_facts, print_json, print_table, say


def assign(
    images: Annotated[
        str,
        options.some_images(metavar="NAME|FOLDER", help="The new images: a prepared data set, or a folder."),
    ],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The run that knows; the newest global run.", autocompletion=complete.runs),
    ] = None,
    split: options.SplitName = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="NAME|DISTANCE",
            help="How far somebody known may be: a distance, labels, or a threshold of icsr eval.",
            show_default="labels",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The table that is written.")] = Path(
        "assigned.csv"
    ),
    precision: options.Precision = None,
    device: options.Device = None,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Give new images to known clusters, or to somebody new; nothing is trained.

    The table: path, cluster (-1: somebody new), the nearest cluster in any case, and its distance.
    """
    from icsr_cli import config, datasets
    from icsr_cli.files import csv_bytes, write_bytes
    from icsr_cli.recipes.assignment import assign_files, limit_of, open_known
    from icsr_cli.recipes.gallery import images_of
    from icsr_cli.recipes.steps import choose_engine
    from icsr_cli.runs import newest, open_run

    options.check_out(out, "--out", ".csv")
    progress = make_progress(quiet, as_json)
    given, _ = images_of(images, split, None, data_root, progress)
    run = open_run(to) if to is not None else newest(runs_root, stage="global", file="last.safetensors")
    if to is None:
        progress.note(f"Run: {run.path} (the newest)")
    settings = config.load_run(run.path / "settings.yaml", sections=config.OF_THE_NETWORK)
    engine = choose_engine(device, precision, run)
    data = datasets.load(run.dataset, data_root)
    known = open_known(run, data, settings, data_root, engine, progress)
    name, farthest = limit_of(known.limits, at)
    rows = assign_files(given.root, given.paths, known, farthest, progress)
    write_bytes(out, csv_bytes([rows[0].keys(), *(row.values() for row in rows)]))
    seen = [row["cluster"] for row in rows if row["cluster"] >= 0]
    facts = {
        "run": str(run.path),
        "known_clusters": len(known.clusters.numbers),
        "at": name,
        "farthest": round(farthest, 4),
        "images": len(rows),
        "known": len(seen),
        "new": len(rows) - len(seen),
        "written": str(out),
    }
    if as_json:
        limits_said = {key: round(value, 4) for key, value in known.limits.items()}
        print_json(facts | {"limits": limits_said, "assigned": rows})
        return
    print_facts("Assigned", {**facts, "farthest": f"{farthest:.4f}", "written": None})
    if most := Counter(sorted(seen)).most_common(5):
        print_table("Clusters with most new images", ("cluster", "new images"), most)
    say(f"Written to {out}", whole=True)
