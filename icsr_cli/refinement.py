"""Information nodes, and the refinement of a global clustering by local clusters.

After Pseudo Labels Refinement with Intra-camera Similarity for Unsupervised Person Re-identification,
ICIP 2023 (arXiv 2304.12634).
"""

from typing import Any, Literal, NamedTuple

import numpy as np

from icsr_cli.checks import as_numpy, image_numbers, in_kind, neighbour_arrays, whole_numbers
from icsr_cli.errors import InputError
from icsr_cli.types import NO_CLUSTER, IntArray, Neighbours, by_first_appearance, number_rows

NodeRule = Literal["highest", "last-above-mean"]
ThrownOut = Literal["discard", "split"]


class Refined(NamedTuple):
    """``labels`` int64 (n,) after the refinement; ``discarded`` bool (n,): the images thrown out.

    numpy or torch, as the labels came.
    """

    labels: Any
    discarded: Any


def node_scores(neighbours: Neighbours, min_similarity: float = 0.5) -> Any:
    """Give each image's centrality: the sum over its edges of 1 / (distance + mean distance).

    The edges of image i lead to its neighbours other than itself of similarity (1 - distance) at least
    ``min_similarity``; the mean is over all n x k distances, the images themselves included.

    Args:
        neighbours: cosine neighbours (published: k = 15).
        min_similarity: least similarity of an edge, -1 to 1.

    Returns:
        float64 (n,), in the kind of the neighbours, 0 for an image without an edge.

    Raises:
        InputError: indices and distances of other shapes, distances that are not finite.
    """
    indices, distances = neighbour_arrays(neighbours)
    if not -1 <= min_similarity <= 1:
        raise InputError(f"min_similarity must be -1 to 1, got {min_similarity!r}.")
    edges = (1 - distances >= min_similarity) & (indices != np.arange(len(indices))[:, None])
    exact = distances.astype(np.float64)
    # Were all images equal, the mean would be 0: a bound keeps the scores finite.
    near = 1 / np.maximum(exact + exact.mean(), 1e-12)
    return in_kind(np.where(edges, near, 0).sum(axis=1), neighbours.indices)


def information_nodes(scores: Any, labels: Any, rule: NodeRule = "highest") -> Any:
    """Choose the information node of each cluster.

    ``"highest"``: its image of highest score, on a tie the lowest index. ``"last-above-mean"``, the
    published script's: its last image, in index order, whose score is above the mean of all n scores; a
    cluster without one has no node.

    Args:
        scores: (n,) numbers, finite.
        labels: int (n,), -1 for noise, which has no node.
        rule: see above.

    Returns:
        int64 (m,), in the kind of the scores: images, clusters in order of their labels.

    Raises:
        InputError: what came is not as said above.
    """
    given, scores = scores, as_numpy(scores)
    if scores.ndim != 1 or scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
        raise InputError(
            f"scores must be finite numbers of shape (n,), got shape {scores.shape}, dtype {scores.dtype}."
        )
    labels = whole_numbers("labels", labels, len(scores))
    if rule == "highest":
        order = np.lexsort((-scores, labels))
    elif rule == "last-above-mean":
        images = np.flatnonzero(scores > scores.mean())[::-1] if len(scores) else np.arange(0)
        order = images[np.argsort(labels[images], kind="stable")]
    else:
        raise InputError(f"rule must be 'highest' or 'last-above-mean', got {rule!r}.")
    order = order[labels[order] != NO_CLUSTER]
    first = np.unique(labels[order], return_index=True)[1]
    return in_kind(np.asarray(order[first], dtype=np.int64), given)


def refine(
    labels: Any, local_labels: Any, cameras: Any, nodes: Any, *, thrown_out: ThrownOut = "discard"
) -> Refined:
    """Throw images out of the clusters in which their own camera's clustering contradicts them.

    A node of global cluster F, camera n, local cluster f throws out of F the images of camera n that are
    not in f: what stays is (F^n & f^n) | F^p for p != n. Nodes act in the order given; a node that an
    earlier one has thrown out throws out nobody, nor does one without a cluster or a local label. Images
    without a local label stay. (So of the nodes in one cluster and camera just the first with a local
    label counts: it throws out all those that could contradict it.)

    Args:
        labels: int (n,), global clusters, -1 for noise.
        local_labels: int (n,), numbered camera by camera (one number under two cameras means nothing);
            -1 for an image without.
        cameras: int (n,), from 0.
        nodes: int (m,), the images that are information nodes.
        thrown_out: ``"discard"`` labels thrown-out images -1; ``"split"`` makes them clusters of their
            own instead, one for each local cluster among those thrown out of one global cluster.

    Returns:
        ``labels`` int64 (n,), 0..m-1 in order of first appearance, -1 for noise and discarded;
        ``discarded`` bool (n,), the images thrown out (under ``"split"`` too). In the kind of the labels.

    Raises:
        InputError: what came is not as said above.
    """
    given, n = labels, as_numpy(labels).size
    labels = whole_numbers("labels", labels, n)
    local_labels = whole_numbers("local_labels", local_labels, n)
    cameras = whole_numbers("cameras", cameras, n, low=0)
    nodes = image_numbers("nodes", nodes, n)
    if thrown_out not in ("discard", "split"):
        raise InputError(f"thrown_out must be 'discard' or 'split', got {thrown_out!r}.")
    discarded = _contradicted(labels, local_labels, cameras, nodes)
    if thrown_out == "discard":
        refined = np.where(discarded, NO_CLUSTER, labels)
    else:
        apart = (np.where(discarded, part, 0) for part in (cameras, local_labels))
        refined = np.where(labels == NO_CLUSTER, NO_CLUSTER, number_rows(labels, discarded, *apart))
    return Refined(in_kind(by_first_appearance(refined), given), in_kind(discarded, given))


def _contradicted(labels: IntArray, local_labels: IntArray, cameras: IntArray, nodes: IntArray) -> Any:
    """Give the mask of images whose cluster and camera have a node of another local cluster."""
    n = len(labels)
    groups = number_rows(labels, cameras)
    acting = nodes[(labels[nodes] != NO_CLUSTER) & (local_labels[nodes] != NO_CLUSTER)]
    ruling, first = np.unique(groups[acting], return_index=True)
    chosen = np.full(n, NO_CLUSTER, dtype=np.int64)
    chosen[ruling] = local_labels[acting[first]]
    kept = chosen[groups]
    return (kept != NO_CLUSTER) & (local_labels != NO_CLUSTER) & (local_labels != kept)
