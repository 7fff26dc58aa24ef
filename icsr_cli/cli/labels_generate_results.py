"""What ``icsr labels generate`` prints and writes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icsr_cli.cli.labels_generate import Choice, Given, Outcome
    from icsr_cli.metrics import LabelQuality
    from icsr_cli.types import IntArray


def print_summary(given: Given, choice: Choice, outcome: Outcome, seconds: float, as_json: bool) -> None:
    """Print two tables on standard output, or one JSON document."""
    from icsr_cli.cli.console import print_json, print_table

    stages = [("clustering", outcome.clusters)]
    refined = len(outcome.nodes) > 0
    if refined:
        stages.append(("refined", outcome.labels))
    summaries = [{"labels": name, **_sizes(labels), **_quality(labels, given.ids)} for name, labels in stages]
    facts: dict[str, Any] = {
        "images": len(outcome.labels),
        "cameras": None if given.cameras is None else len(set(given.cameras.tolist())),
        "clusterer": choice.clusterer.name,
        "options": choice.options,
        "stored pairs": outcome.stored_pairs,
        "silhouette": outcome.silhouette,
        "information nodes": len(outcome.nodes) if refined else None,
        "thrown out": int(outcome.discarded.sum()) if refined else None,
        "recall of the index": outcome.recall,
        "seconds": seconds,
    }
    if as_json:
        print_json({**_json_names(facts), "clusterings": [_json_names(summary) for summary in summaries]})
        return
    settings = " ".join(f"{name}={value}" for name, value in choice.options.items())
    facts["options"] = settings or "defaults"
    shown = [(name, value) for name, value in facts.items() if value is not None]
    print_table("Labels", ("", "value"), shown)
    print_table("Clusters", tuple(summaries[0]), [tuple(summary.values()) for summary in summaries])


def _json_names(facts: dict[str, Any]) -> dict[str, Any]:
    return {name.lower().replace(" ", "_"): value for name, value in facts.items()}


def _sizes(labels: IntArray) -> dict[str, Any]:
    import numpy as np

    sizes = np.bincount(labels[labels >= 0])
    return {
        "clusters": len(sizes),
        "in none": int((labels < 0).sum()),
        "median size": float(np.median(sizes)) if len(sizes) else None,
        "largest": int(sizes.max()) if len(sizes) else None,
    }


def _quality(labels: IntArray, ids: IntArray | None) -> dict[str, float]:
    """Give the quality where there is a truth, and something to compare with it."""
    from icsr_cli.metrics import label_quality

    if ids is None or not ((labels >= 0) & (ids >= 0)).any():
        return {}
    quality: LabelQuality = label_quality(labels, ids)
    names = {
        "pairwise_precision": "precision",
        "pairwise_recall": "recall",
        "pairwise_f": "F",
        "bcubed_f": "BCubed F",
        "expansion": "expansion",
        "nmi": "NMI",
        "coverage": "coverage",
    }
    values = asdict(quality)
    return {shown: float(values[name]) for name, shown in names.items()}


def write_labels(path: Path, given: Given, outcome: Outcome) -> None:
    """Write ``path`` whole or not at all: one row, or one entry of each array, per image."""
    import numpy as np

    from icsr_cli.runs.files import write_text, write_with
    from icsr_cli.runs.labels import write_cohesion

    n = len(outcome.labels)
    is_node = np.zeros(n, dtype=np.int64)
    is_node[outcome.nodes] = 1
    columns: dict[str, Any] = {
        "label": outcome.labels,
        "cluster": outcome.clusters,
        "local_label": outcome.local_labels,
        "thrown_out": outcome.discarded.astype(np.int64),
        "information_node": is_node,
        "cohesion": outcome.cohesion,
    }
    if given.cameras is not None:
        columns = {"camera": given.cameras, **columns}
    if path.suffix == ".npz":

        def save(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.savez_compressed(stream, **columns)

        write_with(path, save)
        return
    texts = {name: column.tolist() for name, column in columns.items()}
    texts["cohesion"] = write_cohesion(outcome.cohesion)
    rows = zip(range(n), *texts.values(), strict=True)
    lines = [",".join(("image", *columns)), *(",".join(map(str, row)) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")
