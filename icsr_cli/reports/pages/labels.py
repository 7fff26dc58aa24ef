"""The labels of one epoch as one page, with the pictures themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from markupsafe import Markup

from icsr_cli.reports import label_report as report
from icsr_cli.reports.charts import bar_chart
from icsr_cli.reports.epochs import curves, epoch_table
from icsr_cli.reports.label_report import ClusterRow
from icsr_cli.reports.page import Table, percent, render, table_of, tile, write
from icsr_cli.reports.pages.images import CLUSTER_PICTURES, cluster_gallery
from icsr_cli.reports.pictures import Pictures
from icsr_cli.reports.truth import quality_table
from icsr_cli.reports.view import LabelSource, View
from icsr_cli.runs import LabelTable
from icsr_cli.types import NO_CLUSTER

#: What of the view's options makes another page.
TAKES = ("dataset",)


def page(view: View) -> str:
    """Show the newest labels of a run. Raises RunError where there are none yet."""
    source = view.source(view.run.find_labels())
    assert view.labels is not None, "the run has labels"
    return overview_page(source, view.labels, view.pictures)


def overview_page(
    source: LabelSource,
    labels: LabelTable,
    pictures: Pictures | None,
    count: int = 5,
    images: int = CLUSTER_PICTURES,
) -> str:
    """Show an epoch: figures, cameras, quality, and ``count`` clusters of each list, ``images`` of each."""
    lists = list(zip(report.LISTS.values(), report.cluster_lists(labels, count).values(), strict=False))
    rows = {row.cluster: row for _, chosen in lists for row in chosen}
    galleries = [cluster_gallery(labels, row, pictures, images) for row in rows.values()]
    cameras, found = report.camera_rows(labels), report.overview(labels)
    return render(
        "labels.html",
        title=f"Labels of {source.name}",
        facts={"Labels": source.file, "Cameras": write(len(cameras))},
        notes=(*source.notes, *report.moved_said(found)),
        tiles=_tiles(found),
        curves=curves(source.epochs, source.stage, labels.camera_names),
        epochs=epoch_table(source.epochs, labels.camera_names) if source.epochs else None,
        sizes=_size_chart(labels),
        cameras=table_of(cameras),
        quality=quality_table(labels),
        lists=[(title, _cluster_table(chosen)) for title, chosen in lists],
        galleries=galleries,
        counts=(len(rows), found["clusters"]),
        local=labels.has_local,
        cohesion=any(row.cohesion is not None for row in rows.values()),
    )


def _tiles(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Count images and clusters, and give the share of what became of the images."""
    parts = {"kept": "kept", "thrown_out": "thrown out", "noise": "in no cluster"}
    shares = [(name, percent(found[key] / found["images"])) for key, name in parts.items() if found[key]]
    return [tile(found["images"], "image"), tile(found["clusters"], "cluster"), *shares]


def _size_chart(labels: LabelTable) -> Markup:
    """Count clusters by their number of images, before and after the refinement; the last bar is open."""
    clustered = (column[column != NO_CLUSTER] for column in (labels.clusters, labels.labels))
    sizes = [np.unique(column, return_counts=True)[1] for column in clustered]
    largest = int(max((size.max(initial=0) for size in sizes), default=0))
    top = min(largest, 40) or 1
    width = -(-top // 20)
    edges = list(range(1, top + 1, width))
    names = [str(edge) if width == 1 else f"{edge}-{edge + width - 1}" for edge in edges]
    if largest > edges[-1] + width - 1:
        names[-1] = f"{edges[-1]}+"
    counts = [
        np.bincount(np.minimum((size - 1) // width, len(edges) - 1), minlength=len(edges)).tolist()
        for size in sizes
    ]
    series = [("clusters before the refinement", counts[0]), ("after", counts[1])]
    return bar_chart("Images per cluster", names, series if counts[0] != counts[1] else series[:1])


def _cluster_table(rows: Sequence[ClusterRow]) -> tuple[Table, tuple[int, ...]]:
    """Give the table without the clusters' numbers, and these, to be linked."""
    hidden = ("cluster", "nodes")
    return table_of([asdict(row) for row in rows], hidden), tuple(row.cluster for row in rows)
