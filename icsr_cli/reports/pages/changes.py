"""What moved between the labels of two epochs as one page, with the pictures of the images that moved."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from icsr_cli.errors import RunError, counted
from icsr_cli.reports import label_changes as changes
from icsr_cli.reports.galleries import Gallery, Shown, grouped, look, shown, spread, word_of
from icsr_cli.reports.label_changes import ClusterMoves, ImageChange
from icsr_cli.reports.page import Table, render, table, table_of, write
from icsr_cli.reports.pictures import Pictures
from icsr_cli.reports.view import View
from icsr_cli.runs import LabelTable, read_labels
from icsr_cli.runs.folder import epoch_of
from icsr_cli.runs.quality import one_number_per_cluster
from icsr_cli.types import NO_CLUSTER

#: What of the view's options makes another page.
TAKES = ("dataset",)
#: Pictures of a cluster, and how many of them are left to images that stayed together.
CLUSTER_PICTURES: Final = 24
STAYED_PICTURES: Final = 6


@dataclass(frozen=True)
class Epochs:
    """What two epochs are called, and the files of their labels: for the head of the page."""

    run: str
    before: str
    after: str
    files: tuple[str, str]
    notes: tuple[str, ...]


def page(view: View) -> str:
    """Show what moved from the first epoch of the run to the last one.

    Raises RunError where it has the labels of no epoch.
    """
    epochs = view.run.epoch_files()
    if not epochs:
        raise RunError(f"The run {view.run.path} has the labels of no epoch, so nothing has moved.")
    return page_between(view, epochs[0], epochs[-1])


def page_between(view: View, before: Path, after: Path, count: int = 5) -> str:
    """Show what moved from the labels of one epoch of the run to those of another."""
    names = [f"epoch {epoch_of(file)}" for file in (before, after)]
    run = f"{view.run.dataset}, {view.run.stage} run {view.run.path.name}"
    notes = view.source(after).notes
    if before == after:
        notes += (changes.SAME_EPOCH,)
    epochs = Epochs(run, names[0], names[1], (str(before), str(after)), notes)
    first, second = (one_number_per_cluster(read_labels(file)) for file in (before, after))
    return change_page(epochs, first, second, view.pictures, count)


@dataclass(frozen=True)
class _Direction:
    """How one list of clusters is called and told: the earlier ones, or the later ones.

    ``words``: images that stayed, are in other clusters, or in none, and the main part; ``groups``: the
    headings of the same.
    """

    anchor: str
    title: str
    epoch: str
    words: tuple[str, str, str, str]
    groups: tuple[str, str, str]
    part: Callable[[ImageChange], int]


def _directions(epochs: Epochs) -> tuple[_Direction, _Direction]:
    return (
        _Direction(
            "before",
            f"Clusters of {epochs.before} that most images left",
            epochs.before,
            ("stayed together", "went to other clusters", "went to no cluster", "successor"),
            ("stayed together, now cluster {}", "went to cluster {}", "now in no cluster"),
            lambda image: image.cluster_after,
        ),
        _Direction(
            "after",
            f"Clusters of {epochs.after} that most images joined",
            epochs.after,
            ("were together", "came from other clusters", "came from no cluster", "origin"),
            ("were together in cluster {}", "came from cluster {}", "were in no cluster"),
            lambda image: image.cluster_before,
        ),
    )


def change_page(
    epochs: Epochs, before: LabelTable, after: LabelTable, pictures: Pictures | None, count: int = 5
) -> str:
    """Show what moved: figures, states, and the ``count`` earlier and later clusters that changed most.

    Raises RunError when the tables have no image in common.
    """
    found = [changes.most_changed(before, after, count, of_later=later) for later in (False, True)]
    lists = list(zip(_directions(epochs), found, strict=True))
    return render(
        "changes.html",
        title=f"From {epochs.before} to {epochs.after}: {epochs.run}",
        facts={"Before": epochs.files[0], "After": epochs.files[1]},
        notes=epochs.notes,
        epochs=epochs,
        tiles=[(name, write(value)) for name, value in changes.compare_labels(before, after).figures.items()],
        states=_state_table(changes.state_changes(before, after), epochs),
        lists=[
            (way.title, way.anchor, _cluster_table(way, rows), [row.cluster for row in rows])
            for way, rows in lists
        ],
        galleries=[_gallery(way, row, pictures) for way, rows in lists for row in rows],
    )


def _state_table(counts: Mapping[tuple[str, str], int], epochs: Epochs) -> Table:
    """Count images by state: a row for each earlier one, a column for each later one that there is."""
    old, new = (sorted({pair[side] for pair in counts}) for side in (0, 1))
    columns = [epochs.before, *(f"{word_of(state)} in {epochs.after}" for state in new)]
    rows = [[word_of(one), *(counts.get((one, two), 0) for two in new)] for one in old]
    return table(columns, rows)


def _cluster_table(way: _Direction, rows: Sequence[ClusterMoves]) -> Table:
    """Give the table without the clusters' numbers; a column of zeros alone is left out."""
    return table_of([{"images": row.images, **_parts(way, row), way.words[3]: row.main} for row in rows])


def _parts(way: _Direction, moves: ClusterMoves) -> dict[str, int | None]:
    """Count the images of each part under its words; None for those that there are none of."""
    counts = (moves.stayed, moves.elsewhere or None, moves.unclustered or None)
    return dict(zip(way.words[:3], counts, strict=True))


def _gallery(way: _Direction, moves: ClusterMoves, pictures: Pictures | None) -> Gallery:
    parts = [f"{write(number)} {words}" for words, number in _parts(way, moves).items() if number]
    chosen = _most_telling(moves)
    groups = grouped(
        chosen,
        lambda image: _heading(way, moves, way.part(image)),
        lambda image: _shown(image, pictures, moved=way.part(image) != moves.main),
    )
    return Gallery(
        f"{way.anchor}-{moves.cluster}",
        f"Cluster {moves.cluster} of {way.epoch}",
        (counted(moves.images, "image"), *parts),
        groups,
        moves.images - len(chosen),
    )


def _heading(way: _Direction, moves: ClusterMoves, part: int) -> str:
    main, other, none = way.groups
    if part == NO_CLUSTER:
        return none
    return (main if part == moves.main else other).format(part)


def _most_telling(moves: ClusterMoves) -> Sequence[ImageChange]:
    """Leave out images that stayed together first, then others, both evenly."""
    stayed = spread(np.arange(moves.stayed), CLUSTER_PICTURES)
    moved = np.arange(moves.stayed, moves.images)
    moved = spread(moved, CLUSTER_PICTURES - min(len(stayed), STAYED_PICTURES))
    stayed = spread(stayed, CLUSTER_PICTURES - len(moved))
    return [moves.changes[place] for place in np.concatenate([stayed, moved]).tolist()]


def _shown(image: ImageChange, pictures: Pictures | None, *, moved: bool) -> Shown:
    before, after = (word_of(state) for state in (image.state_before, image.state_after))
    said = "" if image.state_before == image.state_after else f"{before} → {after}"
    person = "" if image.identity is None else f"id {image.identity}"
    lines = (f"cam {image.camera}", said, person)
    return shown(image.path, pictures, look(image.state_after, image.fate), lines, moved=moved)
