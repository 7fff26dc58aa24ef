"""``icsr report``: a run as one self-contained page; and the pages of ``icsr labels inspect --html``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icsr_cli.cli import complete
from icsr_cli.cli.options import DataRoot, Device, Json, Quiet, RunsRoot
from icsr_cli.errors import DatasetError, InputError, ModelError, RunError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from icsr_cli.config import Settings
    from icsr_cli.metrics import Ranking
    from icsr_cli.progress import Progress
    from icsr_cli.recipes.evaluation import Embedder
    from icsr_cli.reports.pictures import Pictures
    from icsr_cli.reports.run_page import MapView, RankedQuery, RunView
    from icsr_cli.runs import LabelTable, RunFolder
    from icsr_cli.types import Dataset


def report(
    run: Annotated[
        Path | None, typer.Argument(help="A run; the newest one if left out.", autocompletion=complete.runs)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write; report.html in the run if left out.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("-d", "--dataset", help="Data set; the one the run was trained on if left out."),
    ] = None,
    rankings: Annotated[
        int, typer.Option("--rankings", min=0, help="Best, worst and random queries to show, of each.")
    ] = 4,
    draw_map: Annotated[
        bool, typer.Option("--map/--no-map", help="Draw a map of the embedding (t-SNE).")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random queries and the map.")] = 1,
    device: Device = None,
    data_root: DataRoot = Path("data"),
    runs_root: RunsRoot = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page about a run: settings, curves, retrieval, rankings, a map, times.

    The page holds everything itself, pictures too, and loads nothing from anywhere.
    """
    import numpy as np

    from icsr_cli.cli.console import make_progress, print_json
    from icsr_cli.files import write_text
    from icsr_cli.reports.run_page import run_page
    from icsr_cli.runs import newest, open_run

    progress = make_progress(quiet, as_json)
    folder = open_run(run) if run is not None else newest(runs_root, dataset, file="settings.yaml")
    view = _collect(
        folder, dataset, data_root, device, progress, rankings, draw_map, np.random.default_rng(seed)
    )
    for reason in dict.fromkeys(view.absent.values()):
        progress.note(reason)
    path = out or folder.path / "report.html"
    write_text(path, run_page(folder, view))
    if as_json:
        figures = view.ranking.as_dict() if view.ranking is not None else None
        print_json(
            {"run": str(folder.path), "report": str(path), "retrieval": figures, "absent": view.absent}
        )
    else:
        typer.echo(str(path))


def _collect(
    folder: RunFolder,
    dataset: str | None,
    data_root: Path,
    device: str | None,
    progress: Progress,
    rankings: int,
    draw_map: bool,
    generator: np.random.Generator,
) -> RunView:
    """Gather what the page shows; what cannot be had gets its reason instead."""
    from icsr_cli.reports.run_page import RunView

    labels = _newest_labels(folder)
    absent = {} if labels is not None else {"labels": "There are no labels yet: no epoch is finished."}
    if labels is not None and not labels.has_identities:
        absent["labels"] = "The images have no known identities, so labels cannot be judged."
    try:
        embedder = _open_embedder(folder, dataset, data_root, device, progress)
    except (DatasetError, RunError, ModelError) as error:
        absent |= dict.fromkeys(("retrieval", "rankings", "map"), str(error))
        return RunView(None, (), None, labels, absent)
    ranking: Ranking | None = None
    queries: tuple[RankedQuery, ...] = ()
    pairs: dict[tuple[str, str], Ranking] = {}
    try:
        ranking, queries, pairs = _retrieve(embedder, rankings, generator)
        if not queries:
            absent["rankings"] = "No rankings were asked for (--rankings 0)."
    except (DatasetError, InputError) as error:
        absent["retrieval"] = absent["rankings"] = str(error)
    view: MapView | None = None
    try:
        view = _map(embedder, labels, generator) if draw_map else None
        if view is None:
            few = "There are too few training images for a map, or all have the same features."
            absent["map"] = few if draw_map else "No map was asked for (--no-map)."
    except DatasetError as error:
        absent["map"] = str(error)
    return RunView(ranking, queries, view, labels, absent, pairs)


def _newest_labels(folder: RunFolder) -> LabelTable | None:
    from icsr_cli.reports.truth import one_number_per_cluster
    from icsr_cli.runs import read_labels

    files = sorted(folder.labels.glob("epoch_*.csv")) or sorted(folder.labels.glob("local.csv"))
    return one_number_per_cluster(read_labels(files[-1])) if files else None


def _open_dataset(name: str, data_root: Path) -> Dataset:
    from icsr_cli import datasets

    return datasets.load(name, data_root)


def _run_settings(folder: RunFolder) -> Settings:
    from icsr_cli import config

    return config.load(folder.dataset, config=folder.path / "settings.yaml")


def _open_embedder(
    folder: RunFolder, dataset: str | None, data_root: Path, device: str | None, progress: Progress
) -> Embedder:
    from icsr_cli.recipes.report_data import open_embedder
    from icsr_cli.recipes.steps import choose_engine

    data = _open_dataset(dataset or folder.dataset, data_root)
    settings = _run_settings(folder)
    engine = choose_engine(device, settings.precision)
    return open_embedder(folder, data, settings, data_root, engine, progress)


def _retrieve(
    embedder: Embedder, per_kind: int, generator: np.random.Generator
) -> tuple[Ranking, tuple[RankedQuery, ...], dict[tuple[str, str], Ranking]]:
    from icsr_cli.recipes.report_data import retrieve
    from icsr_cli.reports.pictures import thumbnail
    from icsr_cli.reports.run_page import Answer, RankedQuery

    found = retrieve(embedder, per_kind=per_kind, generator=generator)
    names = embedder.dataset.camera_names
    query, gallery = (embedder.dataset.splits[name].records for name in ("query", "gallery"))
    shown = tuple(
        RankedQuery(
            kind=one.kind,
            path=query[one.query].path,
            camera=names[query[one.query].camera],
            average_precision=one.average_precision,
            first_match=one.first_match,
            picture=thumbnail(one.pixels[0]),
            answers=tuple(
                Answer(place + 1, names[gallery[row].camera], bool(right), thumbnail(one.pixels[place + 1]))
                for place, (row, right) in enumerate(zip(one.answers.tolist(), one.right, strict=True))
            ),
        )
        for one in found.queries
    )
    pairs = {(names[one], names[two]): found.by_camera[one, two] for one, two in sorted(found.by_camera)}
    return found.ranking, shown, pairs


def _map(embedder: Embedder, labels: LabelTable | None, generator: np.random.Generator) -> MapView | None:
    import numpy as np

    from icsr_cli.recipes.report_data import map_embedding
    from icsr_cli.reports.run_page import MapView

    found = map_embedding(embedder, generator)
    if found is None:
        return None
    train = embedder.dataset.train
    clusters = None
    if labels is not None:
        by_path = dict(zip(labels.paths, labels.labels.tolist(), strict=True))
        clusters = np.array([by_path.get(train.records[row].path, -1) for row in found.rows.tolist()])
    cameras = np.array(embedder.dataset.camera_names)[train.cameras[found.rows]]
    return MapView(found.points, cameras, clusters, len(train))


def write_label_page(
    out: Path,
    folder: RunFolder | None,
    path: Path,
    table: LabelTable,
    *,
    dataset: str | None,
    data_root: Path,
    progress: Progress,
    count: int,
    images: int,
    cluster: int | None,
    camera: int | None,
    discarded: bool,
    before: Path | None,
) -> None:
    """Write the page of ``icsr labels inspect --html``.

    An overview; one cluster, camera or state; or what moved since the labels ``before``.
    """
    from icsr_cli.files import write_text
    from icsr_cli.reports import label_page as pages
    from icsr_cli.reports.truth import one_number_per_cluster

    labels = one_number_per_cluster(table)
    run = f"{folder.dataset}, {folder.stage} run {folder.path.name}" if folder is not None else ""
    pictures, notes = open_pictures_of(folder, dataset, data_root, progress)
    for note in notes:
        progress.warn(note)
    source = pages.LabelSource(
        name=f"{run}, {path.stem}" if folder is not None else path.name,
        file=str(path),
        stage=folder.stage if folder is not None else "",
        epochs=folder.metrics() if folder is not None else [],
        notes=(*notes, *_state_notes(folder)),
    )
    if before is not None:
        page = _change_page(run, before, path, table, source.notes, pictures, count)
    elif cluster is not None:
        page = pages.cluster_page(source, labels, pictures, cluster)
    elif camera is not None:
        page = pages.camera_page(source, labels, pictures, camera)
    elif discarded:
        page = pages.discarded_page(source, labels, pictures)
    else:
        page = pages.overview_page(source, labels, pictures, count, images)
    write_text(out, page)


def _change_page(
    run: str,
    before: Path,
    after: Path,
    table: LabelTable,
    notes: tuple[str, ...],
    pictures: Pictures | None,
    count: int,
) -> str:
    from icsr_cli.reports.change_page import Epochs, change_page
    from icsr_cli.runs import read_labels

    first, second = (f"epoch {int(file.stem[6:])}" for file in (before, after))
    epochs = Epochs(run, first, second, (str(before), str(after)), notes)
    return change_page(epochs, read_labels(before), table, pictures, count)


def _state_notes(folder: RunFolder | None) -> tuple[str, ...]:
    status = folder.info().get("status") if folder is not None else "finished"
    if status == "finished":
        return ()
    return (f"The state of this run is {status}: these are the labels so far, and more epochs may come.",)


def open_pictures_of(
    folder: RunFolder | None, dataset: str | None, data_root: Path, progress: Progress
) -> tuple[Pictures | None, tuple[str, ...]]:
    """Open the pictures of the training images, or say why there are none."""
    from icsr_cli.cli.options import resolve_settings
    from icsr_cli.recipes.report_data import open_pictures
    from icsr_cli.reports.pictures import Pictures

    name = dataset or (folder.dataset if folder is not None else None)
    if name is None:
        return None, ("There are no pictures: name the data set of these labels with -d.",)
    try:
        data = _open_dataset(name, data_root)
        settings = _run_settings(folder) if folder else resolve_settings(data, None, {}, None)
        paths, pixels = open_pictures(data, settings, data_root, progress)
    except (DatasetError, UsageError) as error:
        return None, (f"There are no pictures. {error}",)
    return Pictures(paths, pixels), ()
