"""A local cluster moves as one: its images go to the global cluster in which most of them are.

For local clusters that can be trusted, such as tracks: what is noise, or astray, follows the others. Needs
local labels; without them nothing moves.
"""

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from icsr_cli import choices
from icsr_cli.types import NO_CLUSTER, Evidence, Labels, by_first_appearance, most_frequent, number_rows


class Options(choices.Options):
    """``least``: the share of a local cluster's images that must be in one global cluster, to draw others."""

    least: float = Field(0.5, ge=0, le=1)
    needs: ClassVar[frozenset[str]] = frozenset({"cameras", "local"})
    least_similarity: ClassVar[float] = 1.0


def refine(evidence: Evidence, labels: Labels, options: Options) -> Labels:
    """Send the images of each local cluster where most of them are; column ``moved``, 1 or 0.

    On a tie they go to the lowest cluster. Images without a local label stay.
    """
    if evidence.local is None or evidence.cameras is None:
        return labels
    known = evidence.local != NO_CLUSTER
    groups = number_rows(evidence.cameras[known], evidence.local[known])
    if not len(groups):
        return labels
    voting = labels.labels[known] != NO_CLUSTER
    with_votes, chosen, most = most_frequent(groups[voting], labels.labels[known][voting])
    enough = most >= options.least * np.bincount(groups)[with_votes]
    target = np.full(int(groups.max()) + 1, NO_CLUSTER, dtype=np.int64)
    target[with_votes[enough]] = chosen[enough]
    found = labels.labels.copy()
    found[known] = np.where(target[groups] == NO_CLUSTER, found[known], target[groups])
    moved = found != labels.labels
    return replace(
        labels,
        labels=by_first_appearance(found),
        states=labels.marked((moved, "kept")),
        columns={**labels.columns, "moved": moved.astype(np.int64)},
        figures={**labels.figures, "moved": int(moved.sum())},
    )
