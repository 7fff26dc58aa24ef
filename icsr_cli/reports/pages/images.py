"""The images of one cluster, one camera, or those that were thrown out, as one page."""

from collections.abc import Callable, Sequence
from typing import Final

from icsr_cli.errors import counted
from icsr_cli.reports import label_report as report
from icsr_cli.reports.galleries import Gallery, Shown, grouped, look, sampled, shown
from icsr_cli.reports.label_report import ClusterRow, ImageRow
from icsr_cli.reports.page import percent, render
from icsr_cli.reports.pictures import Pictures
from icsr_cli.reports.view import LabelSource
from icsr_cli.runs import LabelTable
from icsr_cli.types import NO_CLUSTER

#: Pictures per cluster in the overview, and pictures of a page about one cluster, camera or state.
CLUSTER_PICTURES: Final = 24
PAGE_PICTURES: Final = 400


def cluster_page(source: LabelSource, labels: LabelTable, pictures: Pictures | None, cluster: int) -> str:
    """Show one cluster. Raises RunError when there is none of that number."""
    gallery = cluster_gallery(labels, report.cluster_row(labels, cluster), pictures, PAGE_PICTURES)
    return _gallery_page(source, f"Cluster {cluster} of {source.name}", gallery)


def camera_page(source: LabelSource, labels: LabelTable, pictures: Pictures | None, camera: int) -> str:
    """Show one camera's images by cluster. Raises RunError when there is no such camera."""
    images = report.camera_images(labels, camera)
    title = f"Camera {labels.camera_name(camera)}"
    gallery = _gallery("camera", title, (), images, pictures, _by_cluster, PAGE_PICTURES)
    return _gallery_page(source, f"{title} of {source.name}", gallery)


def discarded_page(source: LabelSource, labels: LabelTable, pictures: Pictures | None) -> str:
    """Show the images that the refinement threw out, by the cluster they were in."""
    images = report.discarded_images(labels)
    gallery = _gallery("discarded", "Thrown out", (), images, pictures, _by_cluster, PAGE_PICTURES)
    return _gallery_page(source, f"Thrown out in {source.name}", gallery)


def _gallery_page(source: LabelSource, title: str, gallery: Gallery) -> str:
    facts = {"Labels": source.file}
    return render("images.html", title=title, facts=facts, notes=source.notes, gallery=gallery)


def cluster_gallery(labels: LabelTable, row: ClusterRow, pictures: Pictures | None, limit: int) -> Gallery:
    """Show up to ``limit`` images of the cluster that ``row`` describes, camera by camera."""
    facts = [counted(row.images, "image"), counted(row.cameras, "camera")]
    if row.local_clusters_per_camera is not None:
        facts.append(f"{row.local_clusters_per_camera:.2f} local clusters per camera")
    if row.cohesion is not None:
        facts.append(f"cohesion {row.cohesion:.2f}")
    if row.thrown_out:
        facts.append(f"{row.thrown_out:,} thrown out")
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
        own = look(row.state, row.fate)
        lines = (
            "" if heading is _by_camera else f"cam {row.camera}",
            f"local {row.local_cluster}" if heading(row) in divided else "",
            own.word if own.mark else "",
            "" if row.identity is None or len(people) == 1 else f"id {row.identity}",
        )
        return shown(row.path, pictures, own, lines)

    groups = grouped(chosen, heading, show)
    return Gallery(anchor, title, facts, groups, len(images) - len(chosen))


def _divided(images: Sequence[ImageRow], heading: Callable[[ImageRow], str]) -> set[str]:
    """Name the groups that hold more than one local cluster."""
    found: dict[str, set[int | None]] = {}
    for image in images:
        found.setdefault(heading(image), set()).add(image.local_cluster)
    return {name for name, local in found.items() if len(local) > 1}
