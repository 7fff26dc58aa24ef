"""Two local clusters of one camera are two people: no cluster keeps both.

A cluster that holds several local clusters of one camera falls into parts: its local clusters are joined
anew, the most alike first, as long as no part holds two of one camera. Images of one camera are easier to
tell apart than those of two, so lookalikes that were joined across cameras are found out within them. Local
against global clusters is the idea of ICSR (arXiv 2304.12634); that two may not be joined is a cannot-link
(Wagstaff et al., Constrained K-means Clustering with Background Knowledge, ICML 2001). Needs local labels;
without them nothing is split.
"""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from icsr_cli import choices
from icsr_cli.types import NO_CLUSTER, Evidence, IntArray, Labels, by_first_appearance


class Options(choices.Options):
    """``min_size``: the images of the smallest part that is a cluster; smaller ones become noise."""

    min_size: int = Field(4, ge=1)
    needs: ClassVar[frozenset[str]] = frozenset({"cameras", "local"})


def refine(evidence: Evidence, labels: Labels, options: Options) -> Labels:
    """Split the clusters that hold two local clusters of one camera; states ``split`` and ``left-out``.

    The figures ``split`` and ``left_out`` count those clusters, and the images of parts that are too small.
    Images without a local label stand in nobody's way.
    """
    if evidence.local is None or evidence.cameras is None:
        return labels
    known = np.where(evidence.local == NO_CLUSTER, -2 - np.arange(len(labels.labels)), evidence.local)
    held = np.column_stack([labels.labels, evidence.cameras, known])
    contested = _contested(held)
    images = np.flatnonzero(np.isin(labels.labels, contested))
    nodes, node = np.unique(held[images], axis=0, return_inverse=True)
    parts = _parts(nodes, node.ravel(), evidence.similarity[images][:, images])[node.ravel()]
    small = images[np.bincount(parts)[parts] < options.min_size]
    found = labels.labels.copy()
    found[images] = labels.n_clusters + parts
    found[small] = NO_CLUSTER
    return replace(
        labels,
        labels=by_first_appearance(found),
        states=labels.marked((images, "split"), (small, "left-out")),
        figures={**labels.figures, "split": len(contested), "left_out": len(small)},
    )


def _contested(held: IntArray) -> IntArray:
    """Give the clusters with two local clusters of one camera; ``held`` (n, 3): cluster, camera, local."""
    nodes = np.unique(held[(held[:, 0] != NO_CLUSTER) & (held[:, 2] >= 0)], axis=0)
    twice = (nodes[1:, :2] == nodes[:-1, :2]).all(axis=1)
    return np.unique(nodes[1:][twice, 0])


def _parts(nodes: IntArray, node: IntArray, similarity: sp.csr_array) -> IntArray:
    """Give the part of each node, int64 (k,), any numbers.

    ``nodes`` (k, 3): cluster, camera, local, below 0 for an image without one; ``node`` (n,): that of each
    image; ``similarity`` (n, n). Nodes are as alike as their images in the mean.
    """
    from icsr_cli.refiners import _kernels

    k = len(nodes)
    entries = sp.coo_array(similarity)
    one, two = (node[ends] for ends in entries.coords)
    inside = (one < two) & (nodes[one, 0] == nodes[two, 0])
    sums = sp.csr_array((entries.data[inside].astype(np.float64), (one[inside], two[inside])), shape=(k, k))
    first, second = sums.nonzero()
    sizes = np.bincount(node, minlength=k)
    alike = sums.data / (sizes[first] * sizes[second])
    order = np.lexsort((second, first, -alike))
    cameras = np.where(nodes[:, 2] < 0, -1, nodes[:, 1])
    n_cameras = int(nodes[:, 1].max(initial=0)) + 1
    parts: IntArray = _kernels.join_apart(first[order], second[order], cameras, n_cameras)
    return parts
