"""What somebody said of pairs of images, as a CSV: ``first,second,answer``.

``first`` and ``second`` are paths of images as a label file holds them, or ``cluster:17``: that cluster of a
label file, which stands for the image that is most like the others of it. ``answer`` is ``same``,
``different``, or ``unsure``, which says nothing. Further columns are the writer's own.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from icsr_cli.errors import RunError, UsageError, did_you_mean, printable, reason
from icsr_cli.files import check_header, csv_bytes, regular, write_bytes
from icsr_cli.labelling.constraints import contradictions, groups_of
from icsr_cli.runs.labels import LabelTable, read_labels
from icsr_cli.runs.places import open_run
from icsr_cli.runs.quality import one_number_per_cluster
from icsr_cli.types import NO_CLUSTER, IntArray, Pairs

COLUMNS: Final = ("first", "second", "answer")
ANSWERS: Final = ("same", "different", "unsure")
_CLUSTER: Final = re.compile(r"cluster:(\d{1,9})")
#: Faults that are named; the others are counted.
_NAMED = 5


@dataclass(frozen=True)
class Answer:
    """One line of the file: two images, or clusters, and what was said of them."""

    first: str
    second: str
    answer: str
    line: int = 0


def read_answers(path: Path, content: bytes | None = None) -> list[Answer]:
    """Read what was answered, from the file or from its ``content``.

    Raises:
        UsageError: the file is missing, no such table, or holds another word than the three answers.
    """
    try:
        read = path.read_bytes() if content is None else content
    except OSError as error:
        raise UsageError(f"The pairs {path} cannot be read: {error.strerror}.") from None
    text = read.decode("utf-8-sig", "surrogateescape")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UsageError(
                f"{path} lacks the column(s) {', '.join(missing)}; its first line must name "
                f"{', '.join(COLUMNS)}."
            )
        check_header(path, reader.fieldnames or (), UsageError)
        answers = [
            Answer(row["first"], row["second"], row["answer"].strip(), reader.line_num) for row in reader
        ]
    except csv.Error as error:
        raise UsageError(f"{path} is no table of pairs: {reason(error)}.") from None
    odd = [
        f"line {one.line}: {one.answer!r}.{did_you_mean(one.answer, ANSWERS)}"
        for one in answers
        if one.answer not in ANSWERS
    ]
    _refuse(path, f"holds other answers than {', '.join(ANSWERS)}", odd)
    return answers


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write the table, whole or not at all."""
    write_bytes(path, _table(answers))


def read_pairs(
    path: Path | None, paths: Sequence[str], clusters: Path | None = None, content: bytes | None = None
) -> Pairs | None:
    """Read pairs of the images ``paths`` (n,), by their number there; None where there is no file.

    Args:
        path: the file.
        paths: the images, as the label file names them.
        clusters: the run, or label file, that ``cluster:17`` is of, where there is one.
        content: what the file holds, where that was read before.

    Raises:
        UsageError: the file cannot be read, names images or clusters that are not there, or contradicts
            itself; with its lines.
        RunError: the labels whose clusters it names are not there.
    """
    if path is None:
        if clusters is None:
            return None
        raise UsageError("--pairs-labels says whose clusters a file of pairs names: give --pairs FILE too.")
    if clusters is not None and not clusters.is_file():
        clusters = open_run(clusters).find_labels()
    answers = read_answers(path, content)
    rows = {name: row for row, name in enumerate(paths)}
    stand_ins = _typical(one_number_per_cluster(read_labels(clusters))) if clusters is not None else None
    faults: list[str] = []
    found: dict[str, list[list[int]]] = {answer: [] for answer in ANSWERS}
    passed: list[str] = []  # what says nothing may name what is not there
    for one in answers:
        wrong = passed if one.answer == "unsure" else faults
        ends = [_row(name, one.line, rows, stand_ins, wrong) for name in (one.first, one.second)]
        if min(ends) >= 0:
            found[one.answer].append(ends)
    _refuse(path, "names what is not there", faults)
    pairs = Pairs(*(np.array(found[answer], dtype=np.int64).reshape(-1, 2) for answer in ANSWERS))
    _refuse(path, "contradicts itself", _contradictions(pairs, answers, paths))
    return pairs


def keep_pairs(folder: Path, pairs: Pairs, paths: Sequence[str]) -> None:
    """Write what a run is to obey into its folder, as ``pairs.csv``: images alone, by their paths."""
    write_answers(folder / "pairs.csv", answers_of(pairs, paths))


def fingerprint(pairs: Pairs, paths: Sequence[str]) -> str:
    """Give the SHA-256 of what is said of pairs, whatever the order, of lines and of the two of a pair."""
    said = {
        (*sorted((one.first, one.second)), one.answer)
        for one in answers_of(pairs, paths)
        if one.answer != "unsure"
    }
    return hashlib.sha256(csv_bytes([COLUMNS, *sorted(said)])).hexdigest()


def about_pairs(file: Path | None, pairs: Pairs, paths: Sequence[str]) -> dict[str, Any]:
    """Give what ``run.json`` holds of pairs: the file, what it says by its hash, and how many of each."""
    return {
        "file": str(file),
        "sha256": fingerprint(pairs, paths),
        "same": len(pairs.same),
        "different": len(pairs.different),
    }


def say_pairs(about: Mapping[str, Any]) -> str:
    """Write what ``about_pairs`` gave as it is read; nothing where it is empty."""
    return "{file}, {same:,} same, {different:,} different".format(**about) if about else ""


def kept_pairs(folder: Path, paths: Sequence[str], about: Mapping[str, Any] | None) -> Pairs | None:
    """Read what ``keep_pairs`` wrote, by what ``about_pairs`` gave; None where nobody has said anything.

    Raises:
        RunError: it is gone, or no longer what it was.
    """
    if about is None:
        return None
    place = folder / "pairs.csv"
    try:
        pairs = read_pairs(regular(place), paths)
    except (OSError, UsageError) as error:
        raise RunError(f"The pairs of the run {folder} cannot be used. {error}") from None
    assert pairs is not None, "there is a file"
    if fingerprint(pairs, paths) != about["sha256"]:
        raise RunError(f"{place} has changed since the run began: it goes on as it began or not at all.")
    return pairs


def answers_of(pairs: Pairs, paths: Sequence[str]) -> list[Answer]:
    """Give pairs as the lines of a file that names images alone."""
    return [
        Answer(paths[first], paths[second], answer)
        for answer in ANSWERS
        for first, second in getattr(pairs, answer).tolist()
    ]


def _table(answers: Iterable[Answer]) -> bytes:
    return csv_bytes([COLUMNS, *((one.first, one.second, one.answer) for one in answers)])


def _refuse(path: Path, what: str, faults: Sequence[str]) -> None:
    if faults:
        more = f"\n  and {len(faults) - _NAMED:,} more" if len(faults) > _NAMED else ""
        raise UsageError(printable(f"{path} {what}:\n  " + "\n  ".join(faults[:_NAMED]) + more))


def _row(
    name: str, line: int, rows: dict[str, int], stand_ins: dict[int, str] | None, faults: list[str]
) -> int:
    """Give the number of an image, or of the one that stands for a cluster; a fault is added to the list."""
    name = name if name in rows else name.strip()
    cluster = _CLUSTER.fullmatch(name)
    if cluster is not None and name not in rows:
        if stand_ins is None:
            faults.append(f"line {line}: {name} - say of which labels: --pairs-labels RUN or FILE")
            return -1
        if int(cluster[1]) not in stand_ins:
            faults.append(f"line {line}: {name}; the labels have clusters 0 to {max(stand_ins, default=-1)}")
            return -1
        name = stand_ins[int(cluster[1])]
    if name not in rows:
        # Looking for the nearest among all images takes a moment: only for those that are named.
        faults.append(f"line {line}: {name!r}.{did_you_mean(name, rows) if len(faults) < _NAMED else ''}")
    return rows.get(name, -1)


def _typical(table: LabelTable) -> dict[int, str]:
    """Give for each cluster its image that is most like the others, the first where nobody says that."""
    cohesion = np.nan_to_num(table.columns.get("cohesion", np.zeros(len(table))), nan=-1.0)
    order = np.lexsort((-cohesion, table.labels))
    labels, first = np.unique(table.labels[order], return_index=True)
    return {
        int(label): table.paths[order[place]]
        for label, place in zip(labels, first, strict=True)
        if label != NO_CLUSTER
    }


def _contradictions(pairs: Pairs, answers: Sequence[Answer], paths: Sequence[str]) -> list[str]:
    """Say of each pair that cannot be different by which lines it is the same."""
    wrong = contradictions(pairs, groups_of(pairs, len(paths)))
    if len(wrong) == 0:
        return []
    equal, unlike = ([one for one in answers if one.answer == word] for word in ("same", "different"))
    found = []
    for row in wrong[: _NAMED + 1].tolist():
        one, (first, second) = unlike[row], pairs.different[row].tolist()
        said = f"line {one.line}: {one.first!r} and {one.second!r} are different"
        lines = _way(first, second, pairs.same, len(paths), [one.line for one in equal])
        them = f"the same by line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"
        found.append(f"{said}, and {them if lines else 'one image'}")
    return found + [""] * (len(wrong) - len(found))


def _way(first: int, second: int, same: IntArray, n: int, lines: Sequence[int]) -> list[int]:
    """Name the ``lines`` of the pairs ``same`` of n images that lead from the first image to the second."""
    line_of = {tuple(sorted(ends)): line for ends, line in zip(same.tolist(), lines, strict=True)}
    graph = coo_array((np.ones(len(same), dtype=np.int8), (same[:, 0], same[:, 1])), shape=(n, n)).tocsr()
    before = breadth_first_order(graph, first, directed=False)[1]
    found = []
    while second != first:
        found.append(line_of[tuple(sorted((second, int(before[second]))))])
        second = int(before[second])
    return sorted(found)
