"""The labels of one epoch as one page, with the pictures themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from icsr_cli.reports import label_report as report
from icsr_cli.reports.charts import bar_chart
from icsr_cli.reports.epochs import curves, epoch_table
from icsr_cli.reports.galleries import Gallery, Shown, counted, grouped, mark_and_word, sampled, shown
from icsr_cli.reports.label_report import ClusterRow, ImageRow
from icsr_cli.reports.page import Table, percent, render, table_of, write
from icsr_cli.reports.pictures import Pictures
from icsr_cli.reports.truth import is_local, quality_table
from icsr_cli.runs import LabelTable
from icsr_cli.types import NO_CLUSTER, IntArray

#: Pictures per cluster in the overview, and pictures of a page about one cluster, camera or state.
CLUSTER_PICTURES: Final = 24
PAGE_PICTURES: Final = 400
_CAMERA_COLUMNS: Final = {
    "camera": "camera",
    "images": "images",
    "kept": "kept",
    "discarded": "thrown out",
    "noise": "noise",
    "nodes": "information nodes",
    "clusters": "clusters",
    "local_clusters": "local clusters",
    "identities": "identities",
}
_CLUSTER_COLUMNS: Final = {
    "images": "images",
    "kept": "kept",
    "discarded": "thrown out",
    "cameras": "cameras",
    "cohesion": "cohesion",
    "local_clusters": "local clusters",
    "local_clusters_per_camera": "per camera",
    "identities": "identities",
    "purity": "purity",
}
_LISTS: Final[dict[str, Callable[[LabelTable, int], tuple[ClusterRow, ...]]]] = {
    "Largest clusters": report.largest_clusters,
    "Most mixed clusters": report.most_mixed_clusters,
    "Clusters that lost most images": report.most_discarded_clusters,
}


@dataclass(frozen=True)
class LabelSource:
    """Where labels come from: for the head of the page. ``epochs`` are the run's metrics, if any."""

    name: str
    file: str
    stage: str
    epochs: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...]


def overview_page(
    source: LabelSource,
    labels: LabelTable,
    pictures: Pictures | None,
    count: int = 5,
    images: int = CLUSTER_PICTURES,
) -> str:
    """Show an epoch: figures, cameras, quality, and ``count`` clusters of each list, ``images`` of each."""
    # Within one camera nothing is mixed or thrown out.
    titles = list(_LISTS)[:1] if is_local(labels) else list(_LISTS)
    lists = {title: _LISTS[title](labels, count) for title in titles}
    rows = {row.cluster: row for chosen in lists.values() for row in chosen}
    galleries = [_cluster_gallery(labels, row, pictures, images) for row in rows.values()]
    cameras = [asdict(row) for row in report.camera_rows(labels)]
    return render(
        "labels.html",
        title=f"Labels of {source.name}",
        facts={"Labels": source.file, "Cameras": write(len(cameras))},
        notes=source.notes,
        tiles=_tiles(labels),
        curves=curves(source.epochs, source.stage, labels.camera_names),
        epochs=epoch_table(source.epochs, labels.camera_names) if source.epochs else None,
        sizes=_size_chart(labels),
        cameras=table_of(cameras, _CAMERA_COLUMNS),
        quality=quality_table(labels),
        lists=[(title, _cluster_table(chosen)) for title, chosen in lists.items()],
        galleries=galleries,
        counts=(len(rows), report.overview(labels).clusters),
        cohesion=any(row.cohesion is not None for row in rows.values()),
    )


def cluster_page(source: LabelSource, labels: LabelTable, pictures: Pictures | None, cluster: int) -> str:
    """Show one cluster. Raises RunError when there is none of that number."""
    gallery = _cluster_gallery(labels, report.cluster_row(labels, cluster), pictures, PAGE_PICTURES)
    return _gallery_page(source, f"Cluster {cluster} of {source.name}", [gallery])


def camera_page(source: LabelSource, labels: LabelTable, pictures: Pictures | None, camera: int) -> str:
    """Show one camera's images by cluster. Raises RunError when there is no such camera."""
    images = report.camera_images(labels, camera)
    title = f"Camera {labels.camera_name(camera)}"
    gallery = _gallery("camera", title, (), images, pictures, _by_cluster, PAGE_PICTURES)
    return _gallery_page(source, f"{title} of {source.name}", [gallery])


def discarded_page(source: LabelSource, labels: LabelTable, pictures: Pictures | None) -> str:
    """Show the images that the refinement threw out, by the cluster they were in."""
    images = report.discarded_images(labels)
    gallery = _gallery("discarded", "Thrown out", (), images, pictures, _by_cluster, PAGE_PICTURES)
    return _gallery_page(source, f"Thrown out in {source.name}", [gallery])


def _gallery_page(source: LabelSource, title: str, galleries: list[Gallery]) -> str:
    return render(
        "gallery.html",
        title=title,
        facts={"Labels": source.file},
        notes=source.notes,
        galleries=galleries,
    )


def _tiles(labels: LabelTable) -> list[tuple[str, str]]:
    found = report.overview(labels)
    share = max(found.images, 1)
    tiles = [("images", write(found.images)), ("clusters", write(found.clusters))]
    if is_local(labels):
        return [*tiles, ("in no cluster", percent(found.noise / share))]
    return [
        *tiles,
        ("kept", percent(found.kept / share)),
        ("thrown out", percent(found.discarded / share)),
        ("noise", percent(found.noise / share)),
        ("information nodes", write(found.nodes)),
    ]


def _size_chart(labels: LabelTable) -> Markup:
    """Count clusters by their number of images, before and after the refinement; the last bar is open."""
    sizes = [_sizes(column) for column in (labels.clusters, labels.labels)]
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


def _sizes(column: IntArray) -> IntArray:
    sizes: IntArray = np.unique(column[column != NO_CLUSTER], return_counts=True)[1].astype(np.int64)
    return sizes


def _cluster_table(rows: Sequence[ClusterRow]) -> tuple[Table, tuple[int, ...]]:
    """Give the table without the clusters' numbers, and these, to be linked."""
    values = [
        {**asdict(row), "local_clusters_per_camera": f"{row.local_clusters_per_camera:.2f}"} for row in rows
    ]
    return table_of(values, _CLUSTER_COLUMNS), tuple(row.cluster for row in rows)


def _cluster_gallery(labels: LabelTable, row: ClusterRow, pictures: Pictures | None, limit: int) -> Gallery:
    facts = [
        counted(row.images, "image"),
        counted(row.cameras, "camera"),
        f"{row.local_clusters_per_camera:.2f} local clusters per camera",
    ]
    if row.cohesion is not None:
        facts.append(f"cohesion {row.cohesion:.2f}")
    if row.discarded:
        facts.append(f"{row.discarded:,} thrown out")
    if row.identities is not None and row.purity is not None:
        facts.append(f"{counted(row.identities, 'identity', 'identities')}, {percent(row.purity)} of one")
    images = report.cluster_images(labels, row.cluster)
    title, anchor = f"Cluster {row.cluster}", f"cluster-{row.cluster}"
    return _gallery(anchor, title, tuple(facts), images, pictures, _by_camera, limit)


def _by_camera(image: ImageRow) -> str:
    return f"camera {image.camera}"


def _by_cluster(image: ImageRow) -> str:
    return "in no cluster" if image.cluster == NO_CLUSTER else f"cluster {image.cluster}"


def _gallery(
    anchor: str,
    title: str,
    facts: tuple[str, ...],
    images: Sequence[ImageRow],
    pictures: Pictures | None,
    heading: Callable[[ImageRow], str],
    limit: int,
) -> Gallery:
    places = sampled([(image.camera, image.state) for image in images], limit)
    chosen = [images[place] for place in places.tolist()]
    people = {image.identity for image in images}
    divided = _divided(images, heading)

    def show(row: ImageRow) -> Shown:
        """Caption what the heading and the marks do not say already."""
        lines = (
            "" if heading is _by_camera else f"cam {row.camera}",
            f"local {row.local_cluster}" if heading(row) in divided else "",
            "" if row.state == "kept" else mark_and_word(row.state)[1],
            "" if row.identity is None or len(people) == 1 else f"id {row.identity}",
        )
        return shown(row.path, pictures, row.state, lines)

    groups = grouped(chosen, heading, show)
    return Gallery(anchor, title, facts, groups, len(images) - len(chosen))


def _divided(images: Sequence[ImageRow], heading: Callable[[ImageRow], str]) -> set[str]:
    """Name the groups that hold more than one local cluster."""
    found: dict[str, set[int]] = {}
    for image in images:
        found.setdefault(heading(image), set()).add(image.local_cluster)
    return {name for name, local in found.items() if len(local) > 1}
