"""Labels as a table: a CSV that any tool reads, and that reads back exactly what was written.

Columns: ``path`` (relative to the data set), ``camera`` (from 0), ``identity``, ``cluster`` (before the
refiners), ``local_cluster``, ``label`` (after them: what the network was trained on) and ``state``: what
became of the image, in a word of the method's own (``kept``, ``noise``, ...). -1 means none; an unknown
camera or identity is empty. Then come the columns of the methods that made the labels, whole numbers or
numbers with a point, an empty field for NaN; ``cohesion``, for one, is the image's mean similarity to the
others of its ``cluster``.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icsr_cli.checks import check_distinct, texts, whole_numbers
from icsr_cli.errors import InputError, RunError, reason
from icsr_cli.files import check_header, csv_bytes, read_arrays, whole_file, write_bytes
from icsr_cli.runs.places import run_of
from icsr_cli.types import NO_CLUSTER, UNKNOWN_IDENTITY, IntArray, Labels, Split

#: The states of images that stay in their cluster, of those that were in none, and of those that are taken
#: out of theirs, also where they get another label.
KEPT, NOISE, DISCARDED = ("kept", "node"), "noise", "discarded"
COLUMNS = ("path", "camera", "identity", "cluster", "local_cluster", "label", "state")


@dataclass(frozen=True)
class LabelTable:
    """One row per image; every array is (n,). ``columns``: float32 or int64, NaN where there is nothing.

    ``camera_names``: what the cameras are called, where the run of the file says it.
    """

    paths: tuple[str, ...]
    cameras: IntArray
    identities: IntArray
    clusters: IntArray
    local_clusters: IntArray
    labels: IntArray
    states: npt.NDArray[np.str_]
    columns: Mapping[str, Any] = field(default_factory=dict)
    camera_names: tuple[str, ...] = ()

    def camera_name(self, camera: int) -> str:
        """Give the name of a camera; its number, from 0, where it has none."""
        return self.camera_names[camera] if 0 <= camera < len(self.camera_names) else str(camera)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def has_identities(self) -> bool:
        """Whether the truth is known for at least one image."""
        return bool((self.identities != UNKNOWN_IDENTITY).any())

    @property
    def has_local(self) -> bool:
        """Whether at least one image has a local label."""
        return bool((self.local_clusters != NO_CLUSTER).any())

    def places(self, split: Split) -> IntArray:
        """Give the row of each image of ``split``, int64 (m,), -1 for one that is not here."""
        rows = {path: row for row, path in enumerate(self.paths)}
        return np.array([rows.get(path, -1) for path in split.paths], dtype=np.int64)

    def of_images(self, split: Split, column: str = "labels") -> IntArray:
        """Give the label, or another number, of each image of ``split``, int64 (m,); -1 as ``places``."""
        where = self.places(split)
        return np.where(where >= 0, getattr(self, column)[where], NO_CLUSTER)


def tabulate(split: Split, labels: Labels, *, local: IntArray | None = None) -> LabelTable:
    """Join what the chain said of the images of ``split`` with what is known, ``local`` int64 (n,)."""
    return table_of(labels, split.paths, split.cameras, split.identities, local)


def table_of(
    labels: Labels,
    paths: Iterable[str],
    cameras: IntArray | None,
    identities: IntArray | None,
    local: IntArray | None,
) -> LabelTable:
    """Join labels of n images with their paths and, int64 (n,), what is known of them."""
    none = np.full(len(labels.labels), -1, dtype=np.int64)
    cameras, identities, local = (none if one is None else one for one in (cameras, identities, local))
    if taken := sorted(set(labels.columns) & set(COLUMNS)):
        raise InputError(f"A method's column may not be called {taken[0]!r}: every table of labels has one.")
    own = (labels.clusters, local, labels.labels, labels.states, labels.columns)
    return LabelTable(tuple(paths), cameras, identities, *own)


def write_labels(path: Path, table: LabelTable) -> None:
    """Write the table, whole or not at all: as CSV, or as ``.npz`` with an array for each column."""
    numbers = (table.cameras, table.identities, table.clusters, table.local_clusters, table.labels)
    known: tuple[Any, ...] = (np.array(table.paths), *numbers, table.states)
    columns = {**dict(zip(COLUMNS, known, strict=True)), **table.columns}
    if path.suffix == ".npz":
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **columns)
        return
    texts = [_texts(array, empty=-1) for array in numbers[:2]]
    texts += [_texts(array) for array in (*numbers[2:], table.states, *table.columns.values())]
    write_bytes(path, csv_bytes(chain([columns], zip(table.paths, *texts, strict=True))))


def _texts(values: npt.NDArray[Any], empty: int | None = None) -> list[str]:
    """Write int64 or float32 (n,) so that it reads back to the bit; a value that says nothing is empty."""
    nothing = np.isnan(values) if values.dtype.kind == "f" else values == empty if empty else False
    return np.where(nothing, "", values.astype(str)).tolist()  # type: ignore[no-any-return]


def read_labels(path: Path) -> LabelTable:
    """Read a table that ``write_labels`` wrote, or one of the same columns from another tool.

    Raises:
        RunError: where the file is missing, damaged, lacks a column, names an image twice, holds something
            else than numbers, or another number of images than its run counted in that epoch.
    """
    if not path.is_file():
        raise RunError(f"There are no labels at {path}.")
    columns = _read_arrays(path) if path.suffix == ".npz" else _read_rows(path)
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise RunError(f"{path} lacks the column(s) {', '.join(missing)}; expected: {', '.join(COLUMNS)}.")
    try:
        cameras, identities, clusters, local, labels = (
            _counts(name, columns[name]) for name in COLUMNS[1:-1]
        )
        paths, states = tuple(_texts_of("path", columns)), np.array(_texts_of("state", columns), dtype=str)
        others = {name: _numbers(name, columns[name]) for name in columns if name not in COLUMNS}
        table = LabelTable(paths, cameras, identities, clusters, local, labels, states, others)
        check_distinct("the column path", table.paths)
    except InputError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    except (ValueError, OverflowError) as error:
        raise RunError(f"{path} holds something that is no whole number from -1: {reason(error)}.") from None
    _check_states(table, path)
    _check_count(table, path)
    return replace(table, camera_names=_camera_names(path))


def _camera_names(path: Path) -> tuple[str, ...]:
    """Give what the run that a file lies in calls its cameras; nothing where nobody can say."""
    run = run_of(path)
    try:
        return run.camera_names if run else ()
    except RunError:  # labels can be read all the same
        return ()


def _check_count(table: LabelTable, path: Path) -> None:
    """Refuse labels of an epoch that are not of as many images as the metrics of the run say.

    A file that is cut at the end of a line reads like a whole one.
    """
    run, named = run_of(path), re.fullmatch(r"epoch_(\d+)\.csv", path.name)
    if run is None or named is None:
        return
    try:
        lines = run.metrics()
    except RunError:  # labels can be read all the same
        return
    counted = [line["images"] for line in lines if line["epoch"] == int(named[1]) and "images" in line]
    if counted and counted[-1] != len(table):
        raise RunError(
            f"{path} holds {len(table):,} images, and there were {counted[-1]:,} in that epoch: rows are "
            "missing or too much. Put the whole file back, or train anew."
        )


def _check_states(table: LabelTable, path: Path) -> None:
    """Refuse a state that its label contradicts; other words are a method's own, and may go either way."""
    labelled = table.labels >= 0
    odd = np.flatnonzero(np.where(labelled, table.states == NOISE, np.isin(table.states, KEPT)))
    if len(odd):
        row = int(odd[0])
        raise RunError(
            f"{path} says that {table.paths[row]!r} has the label {table.labels[row]} and the state "
            f"{str(table.states[row])!r}, as for {len(odd):,} images: {' or '.join(KEPT)} has a label, "
            f"{NOISE} has none."
        )


def _read_arrays(path: Path) -> dict[str, Any]:
    """Give the columns of an ``.npz``, all of one length."""
    columns = read_arrays(path, RunError)
    shapes = {array.shape for array in columns.values()}
    if len(shapes) != 1 or len(shapes.pop()) != 1:
        raise RunError(f"{path} holds columns of different lengths; expected one value for each image.")
    return columns


def _read_rows(path: Path) -> dict[str, Any]:
    """Give the columns of a CSV that is whole."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
        text = stream.read()
    if text and not text.endswith("\n"):
        raise RunError(f"The last line of {path} is not whole: the file is cut off. Make the labels again.")
    try:
        reader = csv.reader(io.StringIO(text, newline=""))
        lines = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise RunError(f"{path} is no table of labels: {error}.") from None
    header, rows = lines[0][1] if lines else [], [row for _, row in lines[1:]]
    check_header(path, header, RunError)
    if not rows:
        raise RunError(f"{path} holds the labels of no image; expected a header and a line for each.")
    odd = next((number for number, row in lines if len(row) != len(header)), None)
    if odd is not None:
        raise RunError(f"Line {odd} of {path} is not {len(header)} fields long; is the file cut off?")
    return dict(zip(header, zip(*rows, strict=True), strict=True))


def _texts_of(name: str, columns: Mapping[str, Any]) -> Any:
    column = columns[name]
    return texts(name, column).tolist() if isinstance(column, np.ndarray) else column


def _counts(name: str, column: Any) -> IntArray:
    """Read numbers from 0; -1, or nothing in a CSV, for none. What else Python takes for one is a fault."""
    if isinstance(column, np.ndarray):
        return whole_numbers(f"the column {name}", column)
    odd = next((value for value in column if not re.fullmatch(r"-1|\d{0,18}", value, re.ASCII)), None)
    if odd is not None:
        raise ValueError(f"{odd!r} in the column {name}")
    return np.array([int(value or -1) for value in column], dtype=np.int64)


def _numbers(name: str, column: Any) -> npt.NDArray[Any]:
    """Read what was written: whole numbers are int64, all else float32, for which none may be too large."""
    if isinstance(column, np.ndarray):
        if column.dtype.kind in "iu":
            return whole_numbers(f"the column {name}", column, low=None)
        if column.dtype.kind not in "bf":
            raise InputError(f"the column {name} must be numbers, got dtype {column.dtype}.")
    elif all(re.fullmatch(r"-?\d{1,18}", value, re.ASCII) for value in column):
        return np.array(list(map(int, column)), dtype=np.int64)
    else:
        column = [value or "nan" for value in column]
    try:
        with np.errstate(over="ignore"):
            numbers = np.array(column, dtype=np.float32)
    except ValueError as error:
        raise InputError(f"the column {name} must be numbers: {reason(error)}.") from None
    for row in np.flatnonzero(np.isinf(numbers)).tolist():
        if "inf" not in str(column[row]).lower():
            raise InputError(f"the column {name} holds {column[row]}, too large a number.")
    return numbers


def align_local(table: LabelTable, split: Split, source: Path) -> IntArray:
    """Give the local cluster of each image of ``split``, int64 (n,), numbered camera by camera.

    Images without one get -1. A table in which no image of the split occurs is of another data set.

    Raises:
        RunError: where no image, or an image under another camera, is found.
    """
    where = table.places(split)
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
