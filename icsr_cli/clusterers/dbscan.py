"""DBSCAN (Ester et al., KDD 1996) on a sparse similarity: clusters are places where images lie densely."""

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

import scipy.sparse as sp
from pydantic import Field

from icsr_cli import choices
from icsr_cli.checks import check_count, check_number, in_kind
from icsr_cli.clusterers.measures import silhouette_of
from icsr_cli.clusterers.similarity import check_similarity
from icsr_cli.types import NO_CLUSTER, Evidence, IntArray, Labels, by_first_appearance

#: The radii that ``auto`` chooses from.
RADII = tuple(round(0.05 * step, 2) for step in range(4, 15))

#: Distances are rounded to float32, and so is the radius: what lies so near to it may count.
_ROUNDING = 1e-6


class Options(choices.Options):
    """Radius (a distance, above 0 and below 1, or ``auto``), and the neighbours that make a core image."""

    eps: Annotated[float, Field(gt=0, lt=1), choices.OrAuto()] = 0.5
    min_samples: int = Field(4, ge=1, lt=2**31)

    @property
    def auto(self) -> bool:
        """Whether the radius is to be chosen."""
        return isinstance(self.eps, str)

    @property
    def least_similarity(self) -> float:
        """Pairs beyond the radius are nobody's neighbours; ``auto`` takes silhouettes, of all pairs."""
        return 0.0 if self.auto else max(0.0, 1 - self.eps - _ROUNDING)

    def faults(self, images: int) -> list[str]:
        """Refuse clusters of more images than there are."""
        return choices.too_large(images, min_samples=self.min_samples)


def cluster(evidence: Evidence, options: Options) -> Labels:
    """Cluster the similarity by density; the figure ``eps`` tells what ``auto`` chose."""
    if not options.auto:
        return Labels.of(_regions(evidence.similarity, options.eps, options.min_samples))
    eps, labels = best_radius(evidence.similarity, options.min_samples)
    return replace(Labels.of(labels), figures={"eps": eps})


def best_radius(similarity: sp.csr_array, min_samples: int = 4) -> tuple[float, IntArray]:
    """Choose the one of ``RADII`` with the highest silhouette, noise counted as 0; the first on a tie.

    A small radius leaves the images out that are hard to place, a large one joins people; the sum of the
    silhouettes over all images falls on either side. Where no radius gives two clusters, it is 0.5. Gives
    the radius and the labels, int64 (n,).
    """
    best, chosen = -math.inf, (0.5, _regions(similarity, 0.5, min_samples))
    for eps in RADII:
        labels = _regions(similarity, eps, min_samples)
        value = silhouette_of(similarity, labels) * float((labels != NO_CLUSTER).mean())
        if value > best:
            best, chosen = value, (eps, labels)
    return chosen


def dbscan(similarity: Any, eps: float | Literal["auto"] = 0.5, min_samples: int = 4) -> Any:
    """Cluster by density: Ester et al., A Density-Based Algorithm, KDD 1996.

    Two images are neighbours where 1 - similarity <= eps. An image with at least ``min_samples``
    neighbours, itself included, is a core image; core images that are neighbours are in one cluster. An
    image beside core images joins, of their clusters, the one with the first core image; the others are
    noise. These are scikit-learn's rules; its numbering follows core images, ours all images.

    Args:
        similarity: (n, n) sparse of scipy, or dense, numpy or torch; symmetric, values in 0 to 1; the
            diagonal does not matter.
        eps: radius, above 0 and below 1: every pair that is not stored is at distance 1; or ``auto``, the
            one of 0.2, 0.25, ..., 0.7 that ``best_radius`` chooses.
        min_samples: neighbours, itself included, that make a core image; at least 1.

    Returns:
        int64 (n,), torch for torch: clusters 0..m-1 in order of first appearance, -1 for noise.

    Raises:
        InputError: what came is not as said above.
    """
    matrix = check_similarity(similarity)
    min_samples = check_count("min_samples", min_samples)
    if eps == "auto":
        return in_kind(best_radius(matrix, min_samples)[1], similarity)
    below_one = math.nextafter(1.0, 0.0)
    eps = check_number("eps", eps, below_one, " and below 1, the distance of pairs not stored")
    return in_kind(_regions(matrix, eps, min_samples), similarity)


def _regions(matrix: sp.csr_array, eps: float, min_samples: int) -> IntArray:
    from icsr_cli.clusterers import _kernels

    # In the precision of the similarity, as a dense distance matrix would be.
    number = matrix.dtype.type
    regions = _kernels.dense_regions(
        matrix.indptr, matrix.indices, matrix.data, number(eps), number(1), min_samples
    )
    return by_first_appearance(regions)
