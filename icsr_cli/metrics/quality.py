"""How well pseudo labels agree with the truth, where somebody knows it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from icsr_cli.checks import whole_numbers
from icsr_cli.errors import InputError
from icsr_cli.types import NO_CLUSTER, UNKNOWN_IDENTITY


@dataclass(frozen=True)
class LabelQuality:
    """Agreement of clusters with identities, over the images that have both. Shares are 0 to 1.

    ``pairwise_*``: over pairs of images; precision is the share of pairs in one cluster that show one
    identity, recall the share of pairs of one identity that are in one cluster, f their harmonic mean.
    ``bcubed_*``: the same seen from each image, then averaged over images (Amigó et al., 2009).
    ``expansion``: into how many clusters an identity falls on average; 1 is best.
    ``nmi``: normalised mutual information, by the arithmetic mean of both entropies.
    ``n_images``, ``n_clusters``, ``n_identities``: what it was computed on.
    ``coverage``: that share of the images of known identity has a label.
    """

    pairwise_precision: float
    pairwise_recall: float
    pairwise_f: float
    bcubed_precision: float
    bcubed_recall: float
    bcubed_f: float
    expansion: float
    nmi: float
    n_images: int
    n_clusters: int
    n_identities: int
    coverage: float

    def as_dict(self) -> dict[str, float | int]:
        """Give the fields under their names, for JSON."""
        return asdict(self)


def label_quality(labels: Any, ids: Any) -> LabelQuality:
    """Compare ``labels`` with the true ``ids``: both whole numbers (n,), numpy or torch.

    Images with a label below 0 (noise, thrown out) and images of ``UNKNOWN_IDENTITY`` are left out.
    Where there is no pair to judge (every cluster, or every identity, has one image), the share of wrong
    ones is none, and that precision or recall is 1. Time and memory are those of sorting n numbers.

    Raises InputError for shapes or types that do not fit, or when no image has both a label and an identity.
    """
    from sklearn.metrics import cluster, normalized_mutual_info_score

    clusters = whole_numbers("labels", labels, low=None)
    identities = whole_numbers("ids", ids, len(clusters), low=None)
    known = identities != UNKNOWN_IDENTITY
    judged = known & (clusters > NO_CLUSTER)
    if not judged.any():
        raise InputError(
            f"none of the {len(clusters)} images has both a label (0 or higher) and a known identity (not "
            f"{UNKNOWN_IDENTITY}); {int((clusters > NO_CLUSTER).sum())} have a label, {int(known.sum())} an "
            "identity. Labels can be judged only where both are known."
        )
    clusters, identities = clusters[judged], identities[judged]
    cells = cluster.contingency_matrix(identities, clusters, sparse=True).tocoo()
    of_identity, in_cluster = (np.asarray(cells.sum(axis=axis)).ravel() for axis in (1, 0))
    n_images, (n_identities, n_clusters) = len(clusters), cells.shape
    (_, mixed), (torn, pairs) = cluster.pair_confusion_matrix(identities, clusters).tolist()
    precision, recall = _share(pairs, pairs + mixed), _share(pairs, pairs + torn)
    bcubed_precision = float((cells.data**2 / in_cluster[cells.col]).sum() / n_images)
    bcubed_recall = float((cells.data**2 / of_identity[cells.row]).sum() / n_images)
    return LabelQuality(
        pairwise_precision=precision,
        pairwise_recall=recall,
        pairwise_f=_harmonic_mean(precision, recall),
        bcubed_precision=bcubed_precision,
        bcubed_recall=bcubed_recall,
        bcubed_f=_harmonic_mean(bcubed_precision, bcubed_recall),
        expansion=cells.nnz / n_identities,
        nmi=float(normalized_mutual_info_score(identities, clusters, average_method="arithmetic")),
        n_images=n_images,
        n_clusters=n_clusters,
        n_identities=n_identities,
        coverage=n_images / int(known.sum()),
    )


def judge(labels: object, ids: object) -> LabelQuality | None:
    """As ``label_quality``, but None where no image has both a label and a known identity."""
    clusters, identities = np.asarray(labels), np.asarray(ids)
    if not ((clusters > NO_CLUSTER) & (identities != UNKNOWN_IDENTITY)).any():
        return None
    return label_quality(clusters, identities)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _harmonic_mean(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
