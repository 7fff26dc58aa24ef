"""Where a network comes from, and the model card that says so."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from icsr_cli import __version__, datasets
from icsr_cli.errors import IcsrError
from icsr_cli.models import Network
from icsr_cli.recipes.debiasing import StoredStatistics
from icsr_cli.runs import RunFolder
from icsr_cli.runs.evaluation import read_evaluations

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
    """Collect what a run folder says of the network in ``weights``.

    ``layout`` is the data set's, where it is known; a data set of a published name is one.
    """
    dataset = run.dataset if run else None
    kind = layout or dataset
    licence, citation, notice = _OWN.get(kind or ""), None, None
    if kind in datasets.available():
        known = datasets.benchmark(kind)
        licence, citation, notice = known.licence, known.citation, known.notice
    origin = Origin(weights, dataset, licence, citation, notice)
    if run is None:
        return origin
    try:
        settings = run.settings()
    except IcsrError:
        settings = {}
    return replace(
        origin,
        stage=run.stage,
        run=run.path.name,
        ended=run.info().get("ended"),
        settings=settings,
        figures=_last_figures(run, weights.stem),
        thresholds=_thresholds(run, weights),
    )


def _thresholds(run: RunFolder, weights: Path) -> dict[str, Any]:
    """Give the newest thresholds of these weights; measured ones before those estimated from clusters."""
    found = [
        entry
        for entry in read_evaluations(run.path)
        if entry.get("thresholds")
        and entry.get("weights") == weights.name
        and not entry.get("debias")
        and entry.get("protocol") != "tracks"
    ]
    if not found:
        return {}
    best = sorted(found, key=lambda entry: not entry.get("estimated", False))[-1]
    return {
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


def model_card(network: Network, size: tuple[int, int], path: Path, origin: Origin) -> str:
    """Write the card in Markdown: what it is, how it is used, what it was made of, what to mind."""
    title = f"{network.arch}" + (f", trained on {origin.dataset}" if origin.dataset else "")
    parts = [
        f"# {title}",
        "A network that turns an image of a person into a vector; images of one person are near each other, "
        "also across cameras. Trained without identities "
        "(intra-camera similarity refinement, arXiv 2304.12634)."
        if origin.stage
        else "A network that turns an image of a person into a vector. Nothing is known of its training.",
        "## Use",
        _table(
            {
                "file": path.name,
                "architecture": network.arch,
                "pooling": f"{network.pooling}, {network.stripes} stripe(s)",
                "input": f"float32 (n, 3, {size[0]}, {size[1]}), RGB, (rgb / 255 - mean) / std",
                "mean": ", ".join(map(str, network.norm.mean)),
                "std": ", ".join(map(str, network.norm.std)),
                "resize": "bicubic with antialiasing",
                "output": f"float32 (n, {network.dim}), unit length: compare by Euclidean distance or cosine",
            }
        ),
        f'```python\nfrom icsr_cli.models import open_model\nnetwork = open_model("{path.name}").eval()\n```',
        *_training(origin),
        *_marks(origin),
        *_cameras(origin),
        "## Licence of the data",
        _licence(origin),
        "## Privacy and limits",
        "It is made to recognise people across cameras, by their clothes and build more than by their face. "
        "Pictures of people, and vectors made of them, are personal data: use it where you may lawfully do "
        "so, keep vectors no longer than the pictures, and let a person look before anything depends on an "
        "answer. It is worse on cameras, clothes, light and people unlike those it was trained on; measure "
        "that first (`icsr eval`).",
        f"Written by icsr {__version__}.",
    ]
    return "\n\n".join(parts) + "\n"


def _training(origin: Origin) -> list[str]:
    if origin.stage is None:
        return []
    facts = {
        "data set": origin.dataset,
        "stage": origin.stage,
        "run": origin.run,
        "weights": origin.weights.name,
        "ended": origin.ended or "not finished when this was written",
    }
    parts = ["## Training", _table(facts)]
    if origin.figures:
        parts += [
            "Figures of the last finished epoch. `pairwise_f` and `nmi` compare the pseudo labels with the "
            "truth, which training did not see.",
            _table(origin.figures),
        ]
    if origin.settings:
        import yaml

        text = yaml.safe_dump(origin.settings, sort_keys=False, allow_unicode=True)
        parts += ["### Settings", f"```yaml\n{text}```"]
    return parts


def _marks(origin: Origin) -> list[str]:
    if not origin.thresholds:
        return []
    how = "estimated from the clusters of its training" if origin.thresholds["estimated"] else "measured"
    return [
        "## Thresholds",
        f"Two images show the same person if the Euclidean distance of their features is at most this, {how} "
        f"on {origin.thresholds['dataset']}:",
        _table(origin.thresholds["distances"]),
    ]


def _cameras(origin: Origin) -> list[str]:
    stored = origin.statistics
    if stored is None:
        return []
    return [
        "## Statistics of cameras",
        f"Mean and spread of the features of {stored.images} training images of {stored.dataset} under each "
        f"camera ({', '.join(stored.cameras)}), for `--debias stored` ({stored.mode}). Off unless asked for.",
    ]


def _licence(origin: Origin) -> str:
    if origin.licence is None:
        return "Unknown. The data set's licence may bind the network too."
    lines = [
        origin.licence,
        *([origin.notice] if origin.notice else []),
        *([f"Cite: {origin.citation}"] if origin.citation else []),
    ]
    return "\n\n".join(lines)


def _table(rows: dict[str, Any]) -> str:
    cells = "\n".join(f"| {name} | {_text(value)} |" for name, value in rows.items())
    return f"| | |\n| --- | --- |\n{cells}"


def _text(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
