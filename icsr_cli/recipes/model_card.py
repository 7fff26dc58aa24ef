"""Where a network comes from, and the model card that says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from icsr_cli import __version__, datasets
from icsr_cli.errors import IcsrError, ModelError
from icsr_cli.files import parse_json
from icsr_cli.models import Network, read_metadata
from icsr_cli.plain_yaml import format_yaml
from icsr_cli.recipes.debiasing import StoredStatistics
from icsr_cli.runs import RunFolder
from icsr_cli.runs.contents import Thresholds, check_contents
from icsr_cli.runs.evaluation import image_thresholds
from icsr_cli.types import Size

_OWN = {
    "synthetic": "Rendered pedestrians: no real person is on the training images.",
    "folder": "Own crops: whoever holds them decides. Ask before you pass the network on.",
}


@dataclass(frozen=True)
class Origin:
    """What is known of a network's training; everything may be unknown.

    ``licence`` and ``citation`` are the data set's. ``figures`` are those of the last epoch. ``thresholds``
    are distances up to which two images show the same person, as ``icsr eval`` found them. ``statistics``
    of its cameras are for ``--debias stored``.
    """

    weights: Path
    dataset: str | None = None
    licence: str | None = None
    citation: str | None = None
    notice: str | None = None
    stage: str | None = None
    run: str | None = None
    ended: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, Any] = field(default_factory=dict)
    statistics: StoredStatistics | None = None


def origin_of(weights: Path, run: RunFolder | None, layout: str | None) -> Origin:
    """Collect what a run folder says of the network in ``weights``; without one, what the file itself says.

    ``layout`` is the data set's, where it is known; a data set of a published name is one.

    Raises:
        ModelError: the thresholds in the file are damaged.
    """
    header = {} if run else read_metadata(weights)
    dataset = run.dataset if run else header.get("dataset")
    kind = layout or dataset
    licence, citation, notice = _OWN.get(kind or "", header.get("licence")), None, None
    if kind in datasets.available():
        known = datasets.benchmark(kind)
        licence, citation, notice = known.licence, known.citation, known.notice
    origin = Origin(weights, dataset, licence, citation, notice)
    if run is None:
        return replace(origin, thresholds=_handed_on(header, weights))
    try:
        settings = run.settings()
    except IcsrError:
        settings = {}
    return replace(
        origin,
        stage=run.stage,
        run=run.path.name,
        ended=str(run.info().get("ended") or "").replace("T", " ")[:19] or None,
        settings=settings,
        figures=_last_figures(run, weights.stem),
        thresholds=_thresholds(run, weights),
    )


def _handed_on(header: Mapping[str, str], weights: Path) -> dict[str, Any]:
    """Give the thresholds that an exported file holds; empty without any."""
    if "thresholds" not in header:
        return {}
    try:
        return dict(check_contents(Thresholds, parse_json(header["thresholds"])))
    except ValueError as error:
        raise ModelError(f"{weights}: its thresholds are damaged ({error}). Export it again.") from None


def _thresholds(run: RunFolder, weights: Path) -> dict[str, Any]:
    """Give the newest thresholds of these weights; measured ones before those estimated from clusters."""
    best = image_thresholds(run.path, weights.name)
    return best and {
        "dataset": best.get("dataset"),
        "estimated": bool(best.get("estimated", False)),
        "distances": {mark["name"]: round(mark["distance"], 4) for mark in best["thresholds"]},
    }


def _last_figures(run: RunFolder, part: str) -> dict[str, Any]:
    """Give the figures of the last epoch, of the network of one camera where it is one."""
    lines = run.metrics()
    lines = [line for line in lines if line.get("part") == part] or lines
    if not lines:
        return {}
    last = lines[-1]
    keys = ("epoch", "loss", "clusters", "kept", "discarded", "noise", "silhouette", "test_mAP", "nmi")
    figures = {key: last[key] for key in keys if key in last}
    for name, quality in last.get("quality", {}).items():
        figures |= {f"{name} {key}": quality[key] for key in ("pairwise_f", "nmi") if key in quality}
    return figures


def model_card(network: Network, size: Size, path: Path, origin: Origin) -> str:
    """Write the card in Markdown: what it is, how it is used, what it was made of, what to mind."""
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    loader = PackageLoader("icsr_cli.recipes", "")
    environment = Environment(loader=loader, undefined=StrictUndefined, **options)  # noqa: S701 - Markdown
    environment.filters["cell"] = _cell
    return environment.get_template("model_card.jinja").render(
        network=network,
        size=size,
        file=path.name,
        origin=origin,
        settings=format_yaml(origin.settings),
        version=__version__,
    )


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
