"""Images of a cluster that one camera alone sees become noise: they teach nothing across cameras.

Source: arXiv 2502.10195 (ICLR 2025). Left undone where there is one camera, which the global stage says once
of all its methods, and, with a word, where too few clusters would remain.
"""

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from icsr_cli import choices
from icsr_cli.types import NO_CLUSTER, Evidence, Labels, by_first_appearance


class Options(choices.Options):
    """``least``: the share of the clusters that must remain, and at least two of them."""

    least: float = Field(0.1, ge=0, le=1)
    needs: ClassVar[frozenset[str]] = frozenset({"cameras"})
    least_similarity: ClassVar[float] = 1.0


def refine(evidence: Evidence, labels: Labels, options: Options) -> Labels:
    """Take the clusters of one camera out; state ``single-camera``."""
    found, clusters = labels.labels, labels.n_clusters
    if evidence.cameras is None or clusters == 0 or len(np.unique(evidence.cameras)) == 1:
        return labels
    inside = found != NO_CLUSTER
    low, high = np.full(clusters, np.iinfo(np.int64).max), np.full(clusters, -1)
    np.minimum.at(low, found[inside], evidence.cameras[inside])
    np.maximum.at(high, found[inside], evidence.cameras[inside])
    several = low < high
    if several.sum() < max(2, options.least * clusters):
        word = f"Clusters of one camera are kept: of {clusters} clusters {several.sum()} would remain."
        return replace(labels, notes=(*labels.notes, word))
    out = inside & ~several[found]
    return replace(
        labels,
        labels=by_first_appearance(np.where(out, NO_CLUSTER, found)),
        states=labels.marked((out, "single-camera")),
        figures={**labels.figures, "single_camera": int(out.sum())},
    )
