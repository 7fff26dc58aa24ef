"""``icsr labels inspect``: what the labels of a run look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icsr_cli.cli import options
from icsr_cli.cli.console import heading, make_progress, print_beside, print_json, print_records, say
from icsr_cli.errors import UsageError, counted

if TYPE_CHECKING:
    from icsr_cli.reports.label_report import ClusterRow, ImageRow
    from icsr_cli.reports.view import View
    from icsr_cli.runs import LabelTable, RunFolder


def inspect(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        options.a_run(
            help="A run or a label file; the newest finished or running run with labels if left out."
        ),
    ] = None,
    dataset: options.NewestOf = None,
    epoch: Annotated[int | None, typer.Option("--epoch", help="Epoch, from 1; the last if left out.")] = None,
    cluster: Annotated[int | None, typer.Option("--cluster", help="Show one cluster's images.")] = None,
    camera: Annotated[
        str | None,
        typer.Option("--camera", help="Show one camera's images, by its name (else number, from 0)."),
    ] = None,
    discarded: Annotated[
        bool, typer.Option("--discarded", help="Show the images that the refinement threw out.")
    ] = False,
    compare: Annotated[
        int | None, typer.Option("--compare", metavar="EPOCH", help="Show what moved since that epoch.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Rows of the tables of clusters.")] = 5,
    images: Annotated[
        int, typer.Option("--images", min=1, help="With --html: pictures of each cluster, of all cameras.")
    ] = 24,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page, with the pictures.")
    ] = None,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Show clusters, sizes, what was thrown out and why, and quality where the truth is known."""
    from icsr_cli.reports import label_report as report
    from icsr_cli.runs import read_labels
    from icsr_cli.runs.quality import one_number_per_cluster

    parts = sum((cluster is not None, camera is not None, discarded, compare is not None))
    if parts > 1:
        raise UsageError("Give one of --cluster, --camera, --discarded and --compare.")
    if html is None or parts:
        options.refuse_typed(ctx, ("images",), "Only the page of all clusters (--html) shows so many;")
    if parts and (html is None or compare is None):
        options.refuse_typed(ctx, ("count",), "Only the tables of all clusters have so many rows;")
    if html is None and run is not None and run.is_file():
        options.refuse_typed(ctx, ("dataset",), f"{run} is a file, and only a page (--html) shows pictures;")
    if html is not None:
        options.check_out(html, "--html", *options.PAGES)
    folder, path = _find(run, dataset, epoch, runs_root)
    table = one_number_per_cluster(read_labels(path))
    number = None if camera is None else _camera(table, camera)
    if compare is not None and folder is None:
        raise UsageError(f"{path} is one epoch's labels; --compare goes with a run folder.")
    before = None if compare is None or folder is None else folder.find_labels(compare)
    if html is not None:
        from icsr_cli.files import write_text
        from icsr_cli.reports.view import View

        progress = make_progress(quiet, as_json)
        view = View((folder,) if folder else (), data_root, dataset, progress=progress)
        write_text(html, _page(view, path, table, count, images, (cluster, number, discarded, before)))
        print_json({"labels": str(path), "html": str(html)}) if as_json else typer.echo(str(html))
    elif before is not None:
        _show_changes(before, table, path, as_json)
    elif cluster is not None:
        _show_images(path, report.cluster_images(table, cluster), as_json, report.cluster_row(table, cluster))
    elif number is not None:
        _show_images(path, report.camera_images(table, number), as_json)
    elif discarded:
        _show_images(path, report.discarded_images(table), as_json)
    else:
        _show_overview(folder, path, table, count, as_json)


def _page(
    view: View,
    path: Path,
    table: LabelTable,
    count: int,
    images: int,
    part: tuple[int | None, int | None, bool, Path | None],
) -> str:
    """Give the page of all labels, or of a part: a cluster, a camera, what was thrown out, what moved."""
    from icsr_cli.reports.pages import changes, labels
    from icsr_cli.reports.pages import images as of_images

    cluster, camera, discarded, before = part
    if before is not None:
        return changes.page_between(view, before, path, count)
    shown = view.source(path), table, view.pictures
    if cluster is not None:
        return of_images.cluster_page(*shown, cluster)
    if camera is not None:
        return of_images.camera_page(*shown, camera)
    return of_images.discarded_page(*shown) if discarded else labels.overview_page(*shown, count, images)


def _camera(table: LabelTable, given: str) -> int:
    """Give the number of a camera by its name, or by itself."""
    if given in table.camera_names:
        return table.camera_names.index(given)
    if given.isdecimal() and len(given) < 10:
        return int(given)
    raise UsageError(
        f"There is no camera {given!r}; there are {', '.join(table.camera_names) or 'numbers, from 0'}."
    )


def _find(
    run: Path | None, dataset: str | None, epoch: int | None, runs_root: Path
) -> tuple[RunFolder | None, Path]:
    """Give the run, where there is one, and the label file that is meant."""
    from icsr_cli.runs import find_runs, newest

    if run is not None and run.is_file():
        if epoch is not None:
            raise UsageError(f"{run} is one epoch's labels; --epoch goes with a run folder.")
        return None, run
    if run is not None:
        folder = options.named_run(run, dataset)
    else:
        labelled = [one for one in find_runs(runs_root, dataset) if one.label_files()]
        sound = [one for one in labelled if one.info().get("status") in ("finished", "running")] or labelled
        folder = sound[-1] if sound else newest(runs_root, dataset, "cam", file="labels/local.csv")
    return folder, folder.find_labels(epoch)


def _show_overview(
    folder: RunFolder | None, path: Path, table: LabelTable, count: int, as_json: bool
) -> None:
    from icsr_cli.reports.epochs import network_name
    from icsr_cli.reports.galleries import word_of
    from icsr_cli.reports.label_report import LISTS, label_report, moved_said

    found = label_report(table, count)
    metrics = [] if folder is None else folder.metrics()
    if as_json:
        print_json({"labels": str(path), "epochs": metrics, **found})
        return
    if folder is not None:
        heading(f"Run: {folder.path} ({folder.info().get('status')})")
    heading(f"{path}: {counted(len(table), 'image')}, {counted(len(set(table.cameras.tolist())), 'camera')}")
    if folder is not None and metrics:
        names = folder.camera_names
        _show_epochs(
            [one | {"part": network_name(one["part"], names)} if "part" in one else one for one in metrics]
        )
        _show_last_epoch(folder, metrics)
    judged = {name: part for name, part in found["quality"].items() if part is not None}
    print_beside("Against the truth", "measure", judged)
    print_records("Cameras", found["cameras"])
    states = (f"{count:,} {word_of(state)}" for state, count in found["states"].items())
    say(f"Images by what became of them: {', '.join(states)}.")
    for line in moved_said(found["overview"]):
        say(line)
    for name, title in LISTS.items():
        _show_clusters(title, found[name])
    for example in found["largest_clusters"][:1]:
        command = options.typed("labels", "inspect", path, "--cluster", example["cluster"])
        say(f"One cluster's images: {command}", whole=True)


def _show_epochs(metrics: Sequence[dict[str, Any]]) -> None:
    rows = []
    for line in metrics:
        # With them the table would not fit 80 columns.
        hidden = ("nodes", "camera_nmi", "kept", "pairs_same", "pairs_different")
        row = {key: value for key, value in line.items() if not isinstance(value, dict) and key not in hidden}
        judged = line.get("quality", {})
        titles = {"global": "NMI", "refined": "NMI refined"}
        row |= {title: judged[name]["nmi"] for name, title in titles.items() if name in judged}
        rows.append(row)
    print_records("Epochs", rows)


def _show_last_epoch(run: RunFolder, metrics: Sequence[dict[str, Any]]) -> None:
    """Show the labels of each camera in its network's last epoch, and the epoch whose labels are kept."""
    last = {int(camera): own for line in metrics for camera, own in line.get("cameras", {}).items()}
    rows = [
        {"camera": run.camera_name(camera), **own, "NMI": own.get("quality", {}).get("nmi")}
        for camera, own in sorted(last.items())
    ]
    print_records("Cameras in their last epoch", rows, hidden=("quality",))


def _show_clusters(title: str, rows: Sequence[dict[str, Any]]) -> None:
    # What is kept is what is not thrown out; with it the table would not fit 80 columns.
    print_records(title, rows, hidden=("nodes", "kept", "local_clusters"))


def _show_images(
    path: Path, images: Sequence[ImageRow], as_json: bool, cluster: ClusterRow | None = None
) -> None:
    if as_json:
        head = {"cluster": cluster} if cluster else {}
        print_json({"labels": path, **head, "images": images})
        return
    heading(str(path))
    if cluster is not None:
        _show_clusters("", [asdict(cluster)])
    if not images:
        say("No images.")
    print_records("", [asdict(image) for image in images], hidden=("fate",))


def _show_changes(before: Path, table: LabelTable, path: Path, as_json: bool) -> None:
    from icsr_cli.reports.label_changes import SAME_EPOCH, compare_labels
    from icsr_cli.runs import read_labels
    from icsr_cli.runs.quality import one_number_per_cluster

    changes = compare_labels(one_number_per_cluster(read_labels(before)), table)
    if as_json:
        print_json({"before": str(before), "after": str(path), **asdict(changes)})
        return
    heading(f"{before.stem} -> {path.stem}")
    if before == path:
        say(SAME_EPOCH)
    print_records("What changed", [changes.figures])
    for title, parts in (("Clusters that split", changes.split), ("Clusters that merged", changes.merged)):
        rows = [
            {"cluster": one.cluster, "images": one.images}
            | {"parts (images)": ", ".join(f"{number} ({size})" for number, size in one.parts)}
            for one in parts
        ]
        print_records(title, rows)
