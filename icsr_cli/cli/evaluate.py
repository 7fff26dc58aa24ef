"""``icsr eval``: retrieval figures of a network on the query and gallery images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import make_progress, print_json, print_records, print_table, say
from icsr_cli.errors import UsageError

if TYPE_CHECKING:
    from icsr_cli.config.schema import Settings
    from icsr_cli.metrics import Threshold
    from icsr_cli.recipes.evaluation import CameraRankings, Embedder, Evaluation
    from icsr_cli.runs import RunFolder
    from icsr_cli.types import Dataset, Size


def evaluate(
    ctx: typer.Context,
    checkpoint: Annotated[
        Path | None,
        options.a_run(help="Weights (.safetensors, .pth.tar) or a run; the newest run if left out."),
    ] = None,
    dataset: Annotated[str | None, options.a_dataset(help="Data set; that of the run if left out.")] = None,
    resume: Annotated[  # says nothing that CHECKPOINT does not: the published command lines have it
        bool,
        typer.Option("--resume", help="As the published code writes it, before CHECKPOINT or alone."),
    ] = False,
    arch: Annotated[
        str | None,
        typer.Option(
            "-a", "--arch", help="Network of weights that do not say it.", autocompletion=complete.networks
        ),
    ] = None,
    height: options.Height = None,
    width: options.Width = None,
    batch_size: Annotated[int | None, typer.Option("-b", "--batch-size", help="Images per step.")] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Also with k-reciprocal re-ranking.")] = False,
    camera_rerank: Annotated[
        bool, typer.Option("--camera-rerank", help="Also re-ranked by camera-aware neighbours.")
    ] = False,
    debias: options.Debias = "none",
    per_camera: Annotated[
        bool, typer.Option("--per-camera", help="Also for each pair of query camera and gallery camera.")
    ] = False,
    tracks: Annotated[
        bool, typer.Option("--tracks", help="From track to track: the mean features of each.")
    ] = False,
    precision: options.Precision = None,
    device: options.Device = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    plugin: options.Plugin = None,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Rank the gallery for every query: mAP, Rank-1/5/10, mINP by the Market-1501 protocol.

    A run is measured on its own data set, at its own size, by its own settings; what is found is kept in its
    evaluation.json.
    """
    from icsr_cli.recipes import evaluation as recipe
    from icsr_cli.recipes.debiasing import debiasing
    from icsr_cli.recipes.steps import choose_engine
    from icsr_cli.runs import run_of
    from icsr_cli.runs.evaluation import read_evaluations, weights_digest

    options.load_plugins(plugin)
    progress = make_progress(quiet, as_json)
    path = recipe.weights_file(checkpoint, runs_root, dataset)
    run = run_of(path)
    if run is not None:
        read_evaluations(run.path)  # a damaged file is found out before anything is computed
    if run is not None and options.from_environment(ctx, "config"):
        config = None  # a run has its own settings, whatever is to be trained next
    own = run.dataset if run and dataset is None else dataset
    data = options.open_dataset(own, data_root, progress, speaks=quiet and not as_json)
    if run is not None and run.dataset != data.name:
        progress.note(f"The network was trained on another data set, {run.dataset}.")
    engine = choose_engine(device, precision, run)
    digest = None if run is None else weights_digest(path)
    network, size = recipe.open_network(path, engine, arch)
    given = {"image.height": height, "image.width": width, "evaluation.batch_size": batch_size}
    settings = _settings(data, run, size, config, given, assignments)
    image = settings.image
    how = debiasing(debias, path, image.size)
    chosen = f", {run.choice}" if run and path.name == "best.safetensors" and run.choice else ""
    progress.note(f"Network: {path} ({network.arch}, {network.dim} features{chosen})")
    embedder = recipe.Embedder(network, data, image, settings.evaluation, data_root, engine, progress)
    keeps = run is not None and _is_usual(data, run, size, embedder)
    if run is not None and not keeps:
        progress.warn(
            "The run's settings say otherwise (--height, --width, --precision, --config or --set is given), "
            f"so {run.path / 'evaluation.json'} does not keep these figures."
        )
    if run is not None and data.untested:
        ignored = ("rerank", "camera_rerank", "debias", "per_camera", "tracks")
        options.refuse_typed(
            ctx,
            ignored,
            f"No identities of {data.name!r} are known, and distances estimated from clusters are of images "
            "and of features that nothing is taken off;",
        )
        _estimate(embedder, run, path, digest, as_json, keep=keeps)
        return
    found = recipe.evaluate(
        embedder,
        ways=[way for way, asked in ((recipe.RERANKED, rerank), (recipe.BY_CAMERA, camera_rerank)) if asked],
        debias=how,
        per_camera=per_camera,
        tracks=tracks,
    )
    if run is not None and keeps:
        recipe.keep(found, run, path, data, debias, progress, digest=digest, tracks=tracks)
    if as_json:
        by_camera = {"per_camera": found.cameras_as_dict(data.camera_names)} if per_camera else {}
        facts = {"dataset": data.name, "network": str(path), "debias": debias, "tracks": tracks}
        print_json({**facts, **found.as_dict(), **by_camera, "thresholds": found.thresholds})
        return
    title = "Retrieval from track to track (%)" if tracks else "Retrieval (%)"
    _show(found, title if debias == "none" else f"{title}, test features debiased ({debias})", data)


def _settings(
    data: Dataset,
    run: RunFolder | None,
    size: Size | None,
    config: Path | None,
    given: dict[str, Any],
    assignments: list[str] | None,
) -> Settings:
    """Give the settings of the run, or of the data set, and what the command line says beside them.

    Images have the ``size`` the network was trained at, unless something is said of it.
    """
    from icsr_cli.config import OF_THE_NETWORK, load_for, load_run

    for assignment in assignments or ():
        if "=" in assignment and not re.match(r"(image|evaluation)\b", assignment):
            raise UsageError(
                f"--set {assignment} changes nothing here: icsr eval goes by image.KEY and evaluation.KEY."
            )
    own = None if run is None else run.path / "settings.yaml"
    trained = {} if size is None else {"height": size[0], "width": size[1]}
    image, said = {"image": trained}, assignments or ()
    if config is not None or own is None or not own.is_file():
        return load_for(data, config=config, options=given, assignments=said, beneath=image)
    return load_run(own, sections=OF_THE_NETWORK, options=image | given, assignments=said)


def _is_usual(data: Dataset, run: RunFolder, size: Size | None, embedder: Embedder) -> bool:
    """Whether a network is looked at as its run says: then its figures stand beside those of other runs."""
    from icsr_cli.recipes.steps import choose_engine

    own = _settings(data, run, size, None, {}, None)
    usual = own.evaluation.model_copy(update={"batch_size": embedder.settings.batch_size})
    if embedder.engine != choose_engine(str(embedder.engine.device), None, run):
        return False
    return embedder.image.size == own.image.size and embedder.settings == usual


def _estimate(
    embedder: Embedder, run: RunFolder, weights: Path, digest: str | None, as_json: bool, *, keep: bool
) -> None:
    """Show and keep the thresholds that the clusters of a run give, where no identity is known."""
    from icsr_cli.recipes.evaluation import estimate_thresholds, keep_estimated

    found, file = estimate_thresholds(embedder, run)
    where = run if keep else None
    facts = keep_estimated(found, where, weights, embedder.dataset, embedder.progress, digest=digest)
    if as_json:
        print_json(facts)
        return
    say(
        "No identities are known here, so nothing can be measured. These distances are estimates: pairs of "
        f"one cluster ({file.name}) under two cameras count as the same person."
    )
    if not found:
        why = "no such pairs are in one cluster, or none in different ones"
        say(f"There are none: {'all images are of one camera' if embedder.dataset.n_cameras == 1 else why}.")
    _show_thresholds(found, "Estimated thresholds: the same person, if the distance is at most")


def _show(found: Evaluation, title: str, data: Dataset) -> None:
    """Print the figures of each way of ranking, thresholds, and pairs of cameras where they were measured."""
    figures = found.as_dict()
    rows = [[_NAMES[key], *percentages(values), values["queries"]] for key, values in figures.items()]
    print_table(title, ["", *PERCENTAGES.values(), "queries"], rows)
    _show_thresholds(found.thresholds)
    for way, rankings in found.by_camera.items():
        _show_cameras(_NAMES[way], rankings, data.camera_names)


def _show_thresholds(
    marks: Sequence[Threshold], title: str = "Thresholds: the same person, if the distance is at most"
) -> None:
    records = [
        {
            "at": mark.name,
            "distance": f"{mark.distance:.3f}",
            "true matches found (%)": f"{100 * mark.true_rate:.1f}",
            "false matches (%)": f"{100 * mark.false_rate:.2f}",
            "F1": f"{mark.f1:.2f}",
        }
        for mark in marks
    ]
    print_records(title, records)


def _show_cameras(title: str, rankings: CameraRankings, names: Sequence[str]) -> None:
    """Print mAP and Rank-1, a row per query camera and a column per gallery camera."""
    rows = sorted({query for query, _ in rankings})
    columns = sorted({gallery for _, gallery in rankings})
    for key, figure in (("mAP", "mAP"), ("rank_1", "Rank-1")):
        cells = {pair: f"{100 * found.as_dict()[key]:.1f}" for pair, found in rankings.items()}
        print_table(
            f"{figure} by camera (%), {title}: a row per query camera",
            ["query", *(names[camera] for camera in columns)],
            [[names[query], *(cells.get((query, camera), "-") for camera in columns)] for query in rows],
        )


_NAMES = {"plain": "features", "reranked": "with re-ranking", "camera": "camera-aware re-ranking"}
PERCENTAGES = {"mAP": "mAP", "rank_1": "Rank-1", "rank_5": "Rank-5", "rank_10": "Rank-10", "mINP": "mINP"}


def percentages(values: dict[str, Any]) -> list[str]:
    """Give the retrieval figures as text in per cent."""
    return [f"{100 * values[key]:.1f}" if key in values else "-" for key in PERCENTAGES]
