"""One run as one page: settings, curves, retrieval, rankings to look at, a map of the embedding, times."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from icsr_cli import config
from icsr_cli.errors import DatasetError, IcsrError, InputError, ModelError, RunError, counted
from icsr_cli.metrics import Ranking
from icsr_cli.plain_yaml import flat
from icsr_cli.recipes.comparison import figures_of, said, title
from icsr_cli.recipes.preparation import PLUGIN
from icsr_cli.recipes.report_data import EmbeddingMap, RankedQuery, Retrieval, map_embedding, retrieve
from icsr_cli.reports.charts import Line, PointGroup, line_chart, scatter
from icsr_cli.reports.epochs import Epoch, curves, epoch_table, network_name, seconds_table
from icsr_cli.reports.label_report import overview
from icsr_cli.reports.page import Table, duration, percent, render, table, tile
from icsr_cli.reports.pictures import Thumbnail, thumbnail
from icsr_cli.reports.truth import quality_table
from icsr_cli.reports.view import View
from icsr_cli.runs import LabelTable, RunFolder
from icsr_cli.runs.evaluation import read_evaluations
from icsr_cli.runs.pairs import say_pairs
from icsr_cli.types import NO_CLUSTER, IntArray

#: Settings, or another file of the run folder, as it was read.
Tree: TypeAlias = Mapping[str, Any]

_LABELS: Final = {
    "cam": "Labels that are kept: each camera's best epoch",
    "global": "Labels of the last epoch",
}
KINDS: Final = {"best": "Best queries", "worst": "Worst queries", "random": "Queries drawn at random"}
_MEASURES: Final = {"mAP": "mAP", "rank_1": "Rank-1", "rank_5": "Rank-5", "mINP": "mINP"}
_STATES: Final = {
    "running": "This run is still going, or was killed: the page shows the epochs that are finished.",
    "interrupted": "This run was interrupted: the page shows the epochs that are finished. "
    "It goes on with --resume.",
    "failed": "This run failed: the page shows the epochs that were finished before.",
}


@dataclass(frozen=True)
class RunView:
    """What a run's page shows beyond the run folder; ``labels`` is the newest label table.

    ``absent`` says why a part is not there, under ``labels`` (against the truth), ``retrieval``,
    ``rankings`` and ``map``.
    """

    retrieval: Retrieval | None
    map: EmbeddingMap | None
    labels: LabelTable | None
    absent: Mapping[str, str]


#: What of the view's options makes another page.
TAKES = ("rankings", "draw_map", "seed", "device", "dataset")


def page(view: View) -> str:
    """Show a run."""
    found = collect(view)
    for reason in dict.fromkeys(found.absent.values()):
        view.progress.note(reason)
    figures = found.retrieval.ranking.as_dict() if found.retrieval else None
    view.facts |= {"retrieval": figures, "absent": found.absent}
    return run_page(view.run, found)


def collect(view: View) -> RunView:
    """Gather what the page shows; what cannot be had gets its reason instead."""
    labels, generator = view.labels, np.random.default_rng(view.seed)
    absent = {} if labels is not None else {"labels": "There are no labels yet: no epoch is finished."}
    if labels is not None and not labels.has_identities:
        absent["labels"] = "The images have no known identities, so labels cannot be judged."
    try:
        embedder = view.embedder
    except (DatasetError, RunError, ModelError) as error:
        absent |= dict.fromkeys(("retrieval", "rankings", "map"), str(error))
        return RunView(None, None, labels, absent)
    retrieval, drawn = None, None
    try:
        retrieval = retrieve(embedder, per_kind=view.rankings, generator=generator)
        if not retrieval.queries:
            absent["rankings"] = "No rankings were asked for (--rankings 0)."
    except (DatasetError, InputError) as error:
        absent["retrieval"] = absent["rankings"] = str(error)
    try:
        drawn = map_embedding(embedder, generator, labels=labels) if view.draw_map else None
        if drawn is None:
            few = "There are too few training images for a map, or all have the same features."
            absent["map"] = few if view.draw_map else "No map was asked for (--no-map)."
    except DatasetError as error:
        absent["map"] = str(error)
    return RunView(retrieval, drawn, labels, absent)


def run_page(run: RunFolder, view: RunView) -> str:
    """Give the whole page as HTML. Raises RunError where ``run.json`` or the settings cannot be read."""
    info, epochs, settings = run.info(), run.metrics(), run.settings()
    environment, found = run.environment(), view.retrieval
    return render(
        "run.html",
        title=f"{run.dataset}: {run.stage} run {run.path.name}",
        facts=_facts(run, info, environment, settings, epochs),
        notes=_warning(run, info, epochs, settings),
        tiles=_tiles(figures_of(epochs), view),
        curves=curves(epochs, run.stage, run.camera_names),
        epochs=epoch_table(epochs, run.camera_names) if epochs else None,
        labels_title=_LABELS[run.stage],
        quality=quality_table(view.labels),
        retrieval=_retrieval_table(found.ranking) if found else None,
        cmc=_cmc_chart(found.ranking) if found else None,
        pairs=_pair_table(found.by_camera) if found else None,
        rankings=_by_kind(found.queries) if found else [],
        maps=_maps(view.map),
        map=view.map,
        absent=view.absent,
        seconds=seconds_table(epochs),
        elapsed=run.elapsed(),
        evaluations=_evaluation_table(run),
        **_compared(run, info, settings),
        environment=table(("", ""), _rows(environment)) if environment else None,
    )


def _facts(
    run: RunFolder, info: Tree, environment: Tree, settings: Tree, epochs: Sequence[Epoch]
) -> dict[str, str]:
    took = sum(float(part) for epoch in epochs for part in epoch.get("seconds", {}).values())
    image, own = settings.get("image", {}), settings.get(run.stage, {})
    facts = {
        "Run": str(run.path),
        "Data set": run.dataset,
        "Method": str(settings.get("method") or ""),
        "Stage": run.stage,
        "Network": str(own.get("model", {}).get("arch", "")),
        "Images": f"{image['height']} x {image['width']}" if {"height", "width"} <= image.keys() else "",
        "Seed": str(settings.get("seed", "")),
        "Best network": run.choice,
        "State": str(info.get("status", "unknown")),
        "Started": str(info.get("started") or "").replace("T", " ")[:19],
        "Epochs took": duration(took) if took else "",
        "Computed on": ", ".join(environment.get("gpus", ())) or str(environment.get("processor", "")),
        "Local labels": str(info.get("local") or ""),
        "Pairs": say_pairs(info.get("pairs") or {}),
    }
    return {name: value for name, value in facts.items() if value}


def _warning(run: RunFolder, info: Tree, epochs: Sequence[Epoch], settings: Tree) -> list[str]:
    state = str(info.get("status", ""))
    if state not in _STATES:
        return []
    planned = settings.get(run.stage, {}).get("epochs", "?")
    last = epochs[-1] if epochs else {"epoch": 0}  # of several networks, the one at work
    part = str(last.get("part", "shared"))
    whose = "" if part == "shared" else f" of {network_name(part, run.camera_names)}"
    reason = f" Reason: {info['reason']}" if info.get("reason") else ""
    return [f"{_STATES[state]} Epoch {last['epoch']} of {planned}{whose} is done.{reason}"]


def _tiles(figures: Mapping[str, float], view: RunView) -> list[tuple[str, str]]:
    """Give the few numbers that one looks for first."""
    tiles: list[tuple[str, str]] = []
    if view.retrieval is not None:
        ranking = view.retrieval.ranking
        tiles += [("mAP", percent(ranking.mAP)), ("Rank-1", percent(ranking.rank(1)))]
    if view.labels is not None:
        found = overview(view.labels)
        tiles += [tile(found["images"], "image"), tile(found["clusters"], "cluster")]
        if found["thrown_out"]:
            tiles.append(("thrown out", percent(found["thrown_out"] / found["images"])))
    names = [name for name in ("nmi", "nmi (mean of cameras)", "loss") if name in figures]
    return tiles + [(f"{title(name)}, last epoch", f"{figures[name]:.3f}") for name in names]


def _retrieval_table(ranking: Ranking) -> Table:
    figures = {"mAP": ranking.mAP}
    figures |= {f"Rank-{k}": ranking.rank(k) for k in (1, 5, 10, 20) if k <= len(ranking.cmc)}
    figures |= {"mINP": ranking.mINP}
    values = [percent(value) for value in figures.values()]
    columns = [*figures, "queries", "without a match"]
    return table(columns, [[*values, ranking.n_queries, ranking.n_left_out]])


def _cmc_chart(ranking: Ranking) -> Markup:
    shown = ranking.cmc[:20]
    line = Line("share", range(1, len(shown) + 1), shown.tolist())
    return line_chart("Queries with a right answer up to a rank (CMC)", [line], percent=True, x_label="rank")


def _by_kind(queries: Sequence[RankedQuery]) -> list[tuple[str, list[tuple[RankedQuery, list[Thumbnail]]]]]:
    """Give the queries of each kind with their pictures: their own, and the answers'."""
    groups = [
        (title, [(query, [*map(thumbnail, query.pixels)]) for query in queries if query.kind == kind])
        for kind, title in KINDS.items()
    ]
    return [(title, group) for title, group in groups if group]


def _maps(view: EmbeddingMap | None) -> list[Markup]:
    if view is None:
        return []
    cameras = [
        PointGroup(f"camera {camera}", view.points[view.cameras == camera])
        for camera in np.unique(view.cameras).tolist()
    ]
    charts = [scatter("By camera", cameras, legend=True)]
    if view.clusters is not None:
        charts.append(scatter("By cluster", _cluster_groups(view.points, view.clusters), legend=False))
    return charts


def _cluster_groups(points: npt.NDArray[np.floating], clusters: IntArray) -> list[PointGroup]:
    """Colour clusters so that numbers near each other differ: hues a golden angle apart."""
    groups = []
    for place, cluster in enumerate(np.unique(clusters).tolist()):
        own = points[clusters == cluster]
        if cluster == NO_CLUSTER:
            groups.append(PointGroup(f"in no cluster, {counted(len(own), 'image')}", own, "var(--faint)"))
            continue
        saturation, lightness = (75, 60)[place % 2], (46, 58, 52)[place % 3]
        colour = f"hsl({place * 137.50776 % 360:.1f}, {saturation}%, {lightness}%)"
        groups.append(PointGroup(f"cluster {cluster}, {counted(len(own), 'image')}", own, colour))
    return groups


def _compared(run: RunFolder, info: Tree, settings: Tree) -> dict[str, Any]:
    """Give the settings as tables, and which of them differ from the method's own for the data set."""
    groups = _groups(settings)
    method, layout, of_data = settings.get("method"), info.get("layout"), info.get("dataset_settings")
    known = isinstance(method, str) and (layout != PLUGIN or of_data is not None)
    try:
        base = config.load(run.dataset, method=method, family=layout, own=of_data) if known else None
    except IcsrError:  # a method that is gone, or of another version
        base = None
    own = _groups(base.dump(run.stage)) if base else groups
    changed = {
        name: {key for key, _ in set(_rows(group)) - set(_rows(own.get(name, {})))} - {"dataset"}
        for name, group in groups.items()
    }
    return {
        "settings": [(name, table(("setting", "value"), _rows(group))) for name, group in groups.items()],
        "changed": changed,
        "compared": f"those of {method} for this data set" if base else "",
    }


def _groups(settings: Tree) -> dict[str, dict[str, Any]]:
    """Divide settings into their parts; single values come first."""
    single = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    parts = {key: dict(value) for key, value in settings.items() if isinstance(value, Mapping)}
    return {"general": single, **parts} if single else parts


def _pair_table(pairs: Mapping[tuple[str, str], Ranking]) -> Table | None:
    """Give mAP by the query's camera (rows) and the gallery's (columns)."""
    if not pairs:
        return None
    queries, found = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    galleries = [camera for camera in dict.fromkeys([*queries, *found]) if camera in found]
    rows = [
        [one, *(percent(pairs[one, two].mAP) if (one, two) in pairs else None for two in galleries)]
        for one in queries
    ]
    return table(["query", *galleries], rows)


def _evaluation_table(run: RunFolder) -> Table | None:
    """Give what icsr eval measured, a row for each way of ranking."""
    try:
        found = [entry for entry in read_evaluations(run.path) if "mAP" in entry]
    except RunError:
        return None
    rows = [
        [
            entry.get("dataset"),
            entry.get("weights"),
            (entry.get("rerank") or "features") + (", tracks" if entry.get("protocol") == "tracks" else ""),
            entry.get("debias") or "-",
            *(percent(entry[key]) if isinstance(entry.get(key), float) else None for key in _MEASURES),
            str(entry.get("date", ""))[:10],
        ]
        for entry in found
    ]
    columns = ["data set", "weights", "ranked by", "debiased", *_MEASURES.values(), "on"]
    return table(columns, rows) if rows else None


def _rows(tree: Tree) -> list[tuple[str, str]]:
    return [
        (key, shlex.join(map(str, value)) if key == "command" and isinstance(value, list) else said(value))
        for key, value in flat(tree)
    ]
