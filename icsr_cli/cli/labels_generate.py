"""``icsr labels generate``: the label engine alone, on features from anywhere."""

from __future__ import annotations

import time
import zipfile
import zlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icsr_cli.cli.options import Device, Json, Quiet
from icsr_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    import scipy.sparse as sp

    from icsr_cli.clustering import Clusterer
    from icsr_cli.progress import Progress
    from icsr_cli.types import BoolArray, FloatArray, IntArray, Neighbours


class Local(str, Enum):
    """Where local labels come from."""

    FILE = "file"
    CLUSTER = "cluster"
    NONE = "none"


class Refine(str, Enum):
    """What happens to images that their camera's clusters contradict."""

    DISCARD = "discard"
    SPLIT = "split"
    NONE = "none"


class Nodes(str, Enum):
    """How a cluster's information node is chosen."""

    HIGHEST = "highest"
    LAST_ABOVE_MEAN = "last-above-mean"


class Index(str, Enum):
    """An index of faiss in place of the exact search."""

    HNSW = "hnsw"
    IVF = "ivf"


@dataclass(frozen=True)
class Given:
    """What the file holds: features (n, d), and whole numbers (n,) or None."""

    features: Any
    cameras: IntArray | None
    local_labels: IntArray | None
    ids: IntArray | None


@dataclass(frozen=True)
class Choice:
    """The options that the labels depend on."""

    clusterer: Clusterer
    options: dict[str, Any]
    k1: int
    k2: int
    k: int
    min_similarity: float
    local: Local
    images_per_cluster: int
    refine: Refine
    nodes: Nodes
    device: str | None
    approximate: Index | None


@dataclass(frozen=True)
class Outcome:
    """What was found; int64, bool or float32 (n,), but ``nodes`` (m,)."""

    clusters: IntArray
    labels: IntArray
    discarded: BoolArray
    local_labels: IntArray
    nodes: IntArray
    silhouette: float
    cohesion: FloatArray
    recall: float | None
    stored_pairs: int


def generate(
    features: Annotated[
        Path,
        typer.Argument(
            help="An .npz with `features` (n, d); perhaps also `cameras`, `local_labels`, `ids` (n,).",
        ),
    ],
    clusterer: Annotated[
        str, typer.Option("--clusterer", "-c", help="dbscan, average-linkage or infomap.")
    ] = "dbscan",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the clusterer, e.g. --set eps=0.5."),
    ] = None,
    k1: Annotated[int, typer.Option("--k1", min=1, help="Neighbours in the reciprocal sets.")] = 30,
    k2: Annotated[int, typer.Option("--k2", min=1, help="Neighbours that are averaged.")] = 6,
    k: Annotated[
        int, typer.Option("--k", min=2, help="Cosine neighbours, for Infomap and the information nodes.")
    ] = 15,
    min_similarity: Annotated[
        float, typer.Option("--min-similarity", help="Least similarity of an edge, for information nodes.")
    ] = 0.5,
    local: Annotated[
        Local,
        typer.Option(
            "--local",
            help="Local labels: those of the file, if it has any; each camera clustered here; or none.",
        ),
    ] = Local.FILE,
    images_per_cluster: Annotated[
        int, typer.Option("--images-per-cluster", min=1, help="With --local cluster: n / this many clusters.")
    ] = 5,
    refine: Annotated[
        Refine,
        typer.Option("--refine", help="Images that a node throws out: discard them, or split them off."),
    ] = Refine.DISCARD,
    nodes: Annotated[
        Nodes, typer.Option("--nodes", help="Information node: the highest score, or the published script's.")
    ] = Nodes.HIGHEST,
    approximate: Annotated[
        Index | None, typer.Option("--approximate", help="Search neighbours by an index of faiss.")
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="NAME=KEY", help="The file's own name, e.g. --key ids=pid."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the labels: a .npz or .csv file.")
    ] = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Turn features into labels, and say what they look like.

    Labels are 0..m-1; -1 is noise, or thrown out by the refinement.

    Example: icsr labels generate features.npz --clusterer dbscan --set eps=0.5 --out labels.csv
    """
    from icsr_cli.cli.console import make_progress, message
    from icsr_cli.cli.labels_generate_results import print_summary, write_labels
    from icsr_cli.clustering import clusterer as find_clusterer

    if out is not None and out.suffix not in (".npz", ".csv"):
        raise UsageError(f"--out must end in .npz or .csv, got {out}.")
    chosen = find_clusterer(clusterer)
    options = _assigned(assignments)
    chosen.check(options)
    given = _read(features, _renamed(keys))
    if local is Local.CLUSTER and given.cameras is None:
        raise UsageError(f"--local cluster needs the camera of each image, and {features} has no `cameras`.")
    choice = Choice(
        chosen,
        options,
        k1,
        k2,
        k,
        min_similarity,
        local,
        images_per_cluster,
        refine,
        nodes,
        device,
        approximate,
    )
    progress = make_progress(quiet, as_json)
    start = time.perf_counter()
    outcome = _label(given, choice, progress)
    print_summary(given, choice, outcome, time.perf_counter() - start, as_json)
    if out is not None:
        write_labels(out, given, outcome)
        if not as_json:
            message(f"Labels: {out}")


def _assigned(assignments: list[str] | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for assignment in assignments or ():
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set takes KEY=VALUE, for example eps=0.5; got {assignment!r}.")
        options[name.strip()] = _number(name, text.strip())
    return options


def _number(name: str, text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--set {name} takes a number, got {text!r}.") from None


def _renamed(keys: list[str] | None) -> dict[str, str]:
    names = {name: name for name in ("features", "cameras", "local_labels", "ids")}
    for pair in keys or ():
        name, equals, key = pair.partition("=")
        if not equals or name not in names:
            raise UsageError(f"--key takes NAME=KEY with NAME one of {', '.join(names)}; got {pair!r}.")
        names[name] = key
    return names


def _read(path: Path, names: dict[str, str]) -> Given:
    import numpy as np

    if not path.is_file():
        raise UsageError(f"There is no file {path}. Give an .npz that holds an array `features` (n, d).")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is not an .npz file. numpy.savez(PATH, features=..., cameras=...) makes one."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            present = list(archive)
            arrays = {key: archive[key] for key in names.values() if key in present}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read as an .npz of plain arrays: {error}.") from error
    for name, key in names.items():
        if key not in present and (name == "features" or key != name):
            raise InputError(
                f"{path} has no array {key!r}; it has {', '.join(present) or 'none'}. "
                f"Say which holds the {name} by --key {name}=NAME."
            )
    table = arrays[names["features"]]
    columns = {
        name: _column(name, arrays.get(names[name]), len(table) if table.ndim else 0)
        for name in ("cameras", "local_labels", "ids")
    }
    if columns["local_labels"] is not None and columns["cameras"] is None:
        raise InputError(f"{path} has local labels and no `cameras`: they are numbered camera by camera.")
    return Given(table, **columns)


def _column(name: str, array: Any, n: int) -> IntArray | None:
    import numpy as np

    if array is None:
        return None
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} must be whole numbers of shape ({n},), one for each row of features; "
            f"got shape {array.shape}, dtype {array.dtype}."
        )
    if name == "cameras" and n and int(array.min()) < 0:
        missing = np.flatnonzero(array < 0)
        raise InputError(
            f"cameras must be 0 or more: {len(missing)} images, first {missing[0]}, have {array.min()}. "
            "Every image needs its camera."
        )
    return np.asarray(array, dtype=np.int64)


def _label(given: Given, choice: Choice, progress: Progress) -> Outcome:
    import numpy as np

    from icsr_cli import distances
    from icsr_cli.clustering import cohesion, silhouette
    from icsr_cli.refinement import information_nodes, node_scores
    from icsr_cli.refinement import refine as refine_labels

    n = len(given.features) if given.features.ndim else 0
    approximate: Any = choice.approximate.value if choice.approximate else None
    with progress.task("Labels", 4, "steps") as task:
        # One search serves both: among unit vectors squared L2 distances are twice the cosine ones.
        found = distances.knn(
            given.features,
            max(1, min(n, max(choice.k1, choice.k))),
            metric="cosine",
            device=choice.device,
            approximate=approximate,
        )
        cosine = _first_columns(found, min(n, choice.k))
        task.advance()
        similarity = distances.jaccard_similarity(
            given.features, choice.k1, choice.k2, device=choice.device, neighbours=found
        )
        task.advance()
        source = similarity if choice.clusterer.takes == "similarity" else cosine
        clusters = choice.clusterer(source, **choice.options)
        task.advance()
        local_labels = _local_labels(given, choice, n)
        nodes = np.zeros(0, dtype=np.int64)
        labels, discarded = clusters, np.zeros(n, dtype=np.bool_)
        if local_labels is not None and given.cameras is not None and choice.refine is not Refine.NONE:
            scores = node_scores(cosine, choice.min_similarity)
            nodes = information_nodes(scores, clusters, choice.nodes.value)
            labels, discarded = refine_labels(
                clusters, local_labels, given.cameras, nodes, thrown_out=choice.refine.value
            )
        task.advance()
    recall = getattr(found, "recall", None)
    if local_labels is None:
        local_labels = np.full(n, -1, dtype=np.int64)
    return Outcome(
        clusters,
        labels,
        discarded,
        local_labels,
        nodes,
        silhouette(similarity, clusters),
        cohesion(similarity, clusters),
        recall,
        similarity.nnz,
    )


def _first_columns(neighbours: Neighbours, k: int) -> Neighbours:
    from icsr_cli.types import Neighbours

    return Neighbours(neighbours.indices[:, :k], neighbours.distances[:, :k])


def _local_labels(given: Given, choice: Choice, n: int) -> IntArray | None:
    """Give the local labels that were asked for, or None where there are none."""
    import numpy as np

    from icsr_cli.clustering import average_linkage
    from icsr_cli.distances import jaccard_similarity

    if choice.local is Local.NONE:
        return None
    if choice.local is Local.FILE or given.cameras is None:
        return given.local_labels
    labels = np.full(n, -1, dtype=np.int64)
    for camera in np.unique(given.cameras):
        rows = np.flatnonzero(given.cameras == camera)
        similarity: sp.csr_array = jaccard_similarity(
            given.features[rows], choice.k1, choice.k2, device=choice.device
        )
        count = min(len(rows), max(2, len(rows) // choice.images_per_cluster))
        labels[rows] = average_linkage(similarity, n_clusters=count)
    return labels
