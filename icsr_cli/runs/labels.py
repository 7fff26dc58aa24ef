"""Labels of one epoch as a table: a CSV that any tool reads.

Columns: ``path`` (relative to the data set), ``camera`` (from 0), ``identity`` (empty if unknown),
``cluster`` (before the refinement), ``local_cluster``, ``label`` (after the refinement: what the network
was trained on) and ``state``: ``kept``, ``node`` (an information node, kept), ``discarded`` (thrown out
by the refinement) or ``noise`` (in no cluster). -1 means none. The column ``cohesion``, the image's mean
similarity to the others of its ``cluster``, is there where a similarity was: it is empty for noise and for
images alone in their cluster.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icsr_cli.errors import RunError
from icsr_cli.runs.files import write_with
from icsr_cli.types import NO_CLUSTER, UNKNOWN_IDENTITY, BoolArray, FloatArray, IntArray, Split

COLUMNS = ("path", "camera", "identity", "cluster", "local_cluster", "label", "state")
COHESION = "cohesion"


@dataclass(frozen=True)
class LabelTable:
    """One row per training image; every array is (n,).

    ``cohesion`` float32: how alike an image is to the others of its cluster, NaN where there are none; None
    where nobody has measured it.
    """

    paths: tuple[str, ...]
    cameras: IntArray
    identities: IntArray
    clusters: IntArray
    local_clusters: IntArray
    labels: IntArray
    states: npt.NDArray[np.str_]
    cohesion: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def has_identities(self) -> bool:
        """Whether the truth is known for at least one image."""
        return bool((self.identities != UNKNOWN_IDENTITY).any())


def tabulate(
    split: Split,
    clusters: IntArray,
    *,
    local_clusters: IntArray | None = None,
    labels: IntArray | None = None,
    discarded: BoolArray | None = None,
    nodes: IntArray | None = None,
    cohesion: FloatArray | None = None,
) -> LabelTable:
    """Join what the label engine said of the images of ``split``; what is left out is the plain case."""
    n = len(split)
    none = np.full(n, NO_CLUSTER, dtype=np.int64)
    states = np.where(clusters == NO_CLUSTER, "noise", "kept").astype("<U9")
    if nodes is not None:
        states[nodes] = "node"
    if discarded is not None:
        states[discarded] = "discarded"
    return LabelTable(
        paths=tuple(record.path for record in split.records),
        cameras=split.cameras,
        identities=split.identities,
        clusters=clusters,
        local_clusters=none if local_clusters is None else local_clusters,
        labels=clusters if labels is None else labels,
        states=states,
        cohesion=cohesion,
    )


def write_labels(path: Path, table: LabelTable) -> None:
    """Write the table as CSV, whole or not at all."""
    numbers = (table.cameras, table.identities, table.clusters, table.local_clusters, table.labels)
    columns = [table.paths, *(array.tolist() for array in numbers), table.states.tolist()]
    columns[2] = ["" if identity == UNKNOWN_IDENTITY else identity for identity in columns[2]]
    names = list(COLUMNS)
    if table.cohesion is not None:
        names.append(COHESION)
        columns.append(write_cohesion(table.cohesion))

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(names)
            writer.writerows(zip(*columns, strict=True))

    write_with(path, write)


def write_cohesion(values: FloatArray) -> list[str]:
    """Write float32 (n,) as a column of text: four decimals, nothing for NaN."""
    return ["" if math.isnan(value) else f"{value:.4f}" for value in values.tolist()]


def read_labels(path: Path) -> LabelTable:
    """Read a table that ``write_labels`` wrote, or one of the same columns from another tool.

    The column ``cohesion`` may be missing.

    Raises:
        RunError: where the file is missing, lacks a column, or holds something else than numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            rows = [row for row in reader if row]
    except FileNotFoundError:
        raise RunError(f"There are no labels at {path}.") from None
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise RunError(f"{path} lacks the column(s) {', '.join(missing)}; expected: {', '.join(COLUMNS)}.")
    if any(len(row) != len(header) for row in rows):
        raise RunError(f"{path} has a row that is not {len(header)} fields long; is the file cut off?")
    columns = dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True))
    try:
        return LabelTable(
            paths=columns["path"],
            cameras=_numbers(columns["camera"]),
            identities=_numbers(value or UNKNOWN_IDENTITY for value in columns["identity"]),
            clusters=_numbers(columns["cluster"]),
            local_clusters=_numbers(columns["local_cluster"]),
            labels=_numbers(columns["label"]),
            states=np.array(columns["state"], dtype="<U9"),
            cohesion=_read_cohesion(columns.get(COHESION), path),
        )
    except ValueError as error:
        raise RunError(f"{path} holds something that is not a whole number: {error}.") from None


def _numbers(column: object) -> IntArray:
    return np.array(list(column), dtype=np.int64)  # type: ignore[call-overload]


def _read_cohesion(column: tuple[str, ...] | None, path: Path) -> FloatArray | None:
    if column is None:
        return None
    try:
        return np.array([value or "nan" for value in column], dtype=np.float32)
    except ValueError as error:
        raise RunError(f"{path} holds a cohesion that is not a number: {error}.") from None


def align_local(table: LabelTable, split: Split, source: Path) -> IntArray:
    """Give the local cluster of each image of ``split``, in its order, numbered camera by camera.

    Images without one get -1. A table in which no image of the split occurs is of another data set.

    Raises:
        RunError: where no image, or an image under another camera, is found.
    """
    rows = {path: row for row, path in enumerate(table.paths)}
    where = np.array([rows.get(record.path, -1) for record in split.records], dtype=np.int64)
    found = where >= 0
    if not found.any():
        raise RunError(
            f"None of the {len(split)} training images has a label in {source}. It begins with "
            f"{table.paths[0] if table.paths else 'no image'!r}, the data set with {split.records[0].path!r}."
        )
    moved = found & (table.cameras[where] != split.cameras)
    if moved.any():
        first = split.records[int(np.flatnonzero(moved)[0])]
        raise RunError(
            f"{source} says that {first.path!r} was taken by another camera than the data set says "
            f"({first.camera}), as for {int(moved.sum())} images. Cameras count from 0."
        )
    return np.where(found, table.local_clusters[where], NO_CLUSTER)
