"""Camera-aware Jaccard: neighbours under an image's own camera and under the others count apart.

Source: CA-Jaccard (Chen et al., CVPR 2024, arXiv 2311.10605). Images of one camera are alike for reasons of
the camera; among all neighbours they crowd the others out. The paper is followed; their code fills short
lists with images of the wrong camera, counts one image more under other cameras, and averages over 3 and 3 in
the first epoch.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from icsr_cli import choices
from icsr_cli.checks import as_numpy, check_count, whole_numbers
from icsr_cli.distances.features import check_features, unit_rows
from icsr_cli.distances.jaccard import jaccard_similarity, joined, mirrored, overlaps, weighted
from icsr_cli.distances.neighbours import search_pairs
from icsr_cli.errors import InputError
from icsr_cli.types import ALONE, Evidence, Team

#: Similarities that are held at a time.
_BLOCK = 1 << 25


class Options(choices.Options):
    """Neighbours under the own camera and under others, in the reciprocal sets and in the average.

    ``own2`` counts the image itself. ``k1`` and ``k2`` are those of ``jaccard``, where there is one camera.
    """

    own: int = Field(5, ge=1)
    cross: int = Field(20, ge=1)
    own2: int = Field(2, ge=1)
    cross2: int = Field(4, ge=0)
    k1: int = Field(30, ge=1)
    k2: int = Field(6, ge=1)
    needs: ClassVar[frozenset[str]] = frozenset({"cameras"})


def similarity(evidence: Evidence, options: Options) -> sp.csr_array:
    """Give 1 - the camera-aware Jaccard distance, sparse (n, n)."""
    if evidence.cameras is None:
        raise InputError("The camera-aware distance needs the camera of each image.")
    return camera_jaccard_similarity(
        evidence.features, evidence.cameras, **options.model_dump(), least=evidence.least, team=evidence.team
    )


def camera_jaccard_similarity(
    features: Any,
    cameras: Any,
    own: int = 5,
    cross: int = 20,
    own2: int = 2,
    cross2: int = 4,
    *,
    k1: int = 30,
    k2: int = 6,
    least: float = 0.0,
    team: Team = ALONE,
) -> sp.csr_array:
    """Give 1 - the camera-aware Jaccard distance of all pairs that share anything (arXiv 2311.10605).

    1. I(i, k) holds i and the k nearest under its own camera, X(i, k) the k nearest under all others.
    2. R(i) holds the j of I(i, own) that have i in theirs, and of X(i, cross) likewise.
    3. V(i) is softmax(-|x_i - x_j|^2) over R(i); then its mean over the first own2 of I(i) and the first
       cross2 of X(i).
    4. With s = sum_j min(V(i)_j, V(l)_j), the similarity of i and l is s / (2 - s).

    ``features`` (n, d): numbers, numpy or torch; neighbours are searched where they are. ``cameras``: int
    (n,), from 0. ``own``, ``cross`` and ``own2``, which counts the image itself, are at least 1, ``cross2``
    0. ``k1``, ``k2``, ``least`` and ``team`` as of ``jaccard_similarity``, which serves one camera.

    Returns:
        float32 (n, n), symmetric, values in (0, 1], as ``jaccard_similarity``.

    Raises:
        InputError: what came is not as said above.
    """
    from icsr_cli.kreciprocal import expanded, mutual

    vectors = unit_rows(check_features(features))
    if not 0 <= least <= 1:
        raise InputError(f"least must be 0 to 1, got {least!r}.")
    n = len(vectors)
    of_image = whole_numbers("cameras", cameras, n, low=0)
    own, cross, own2 = (check_count(name, k) for name, k in (("own", own), ("cross", cross), ("own2", own2)))
    cross2 = check_count("cross2", cross2, 0)
    if len(np.unique(of_image)) == 1:
        return jaccard_similarity(vectors, k1, k2, least=least, team=team)
    near, far = nearest_by_camera(vectors, of_image, max(own + 1, own2), max(cross, cross2), team)
    lists = near[:, : own + 1], far[:, :cross]
    members = np.concatenate([np.where(mutual(ranks), ranks, n) for ranks in lists], axis=1)
    members.sort(axis=1)
    kept = members < n
    starts = np.concatenate(([0], np.cumsum(kept.sum(axis=1))))
    rows = weighted(as_numpy(vectors), starts, np.ascontiguousarray(members[kept], dtype=np.int32))
    averaged = np.concatenate([near[:, :own2], far[:, :cross2]], axis=1)
    if averaged.shape[1] > 1:
        rows = joined(expanded(averaged, rows, team.share(n)), team)
    return mirrored(n, overlaps(rows, least, team))


def nearest_by_camera(
    vectors: Any, cameras: Any, own: int, cross: int, team: Team = ALONE
) -> tuple[Any, Any]:
    """Search the nearest under the own camera, self first, and under all others: int32 (n, own), (n, cross).

    -1 where there are fewer; ties go by camera, then by index. Both come from the same products, which the
    processes of the team share.
    """
    order = np.argsort(cameras, kind="stable")
    search = _on_cpu if isinstance(vectors, np.ndarray) else _on_device
    back = np.append(order, -1).astype(np.int32)
    near, far = (np.full((len(order), k), -1, dtype=np.int32) for k in (own, cross))
    found = search(vectors[order], np.ascontiguousarray(cameras[order]), own, cross, team)
    for lists, places in zip((near, far), found, strict=True):
        lists[order, : places.shape[1]] = back[places]
    return near, far


def _on_cpu(x: Any, cameras: Any, own: int, cross: int, team: Team) -> Iterator[Any]:
    """Search images that are sorted by camera; n stands for nobody."""
    from icsr_cli.exact_search import BETWEEN_GROUPS, WITHIN_GROUP, Among

    n = len(x)
    images = np.arange(n)[:, None]
    wanted = [Among(own, WITHIN_GROUP), Among(cross + 1, BETWEEN_GROUPS)]
    for (found, _), first in zip(
        search_pairs(x, wanted, cameras, team), (images, images[:, :0]), strict=True
    ):
        others = found[found != images].reshape(n, -1)
        yield np.hstack([first, others])


def _on_device(x: Any, cameras: Any, own: int, cross: int, team: Team) -> Iterator[Any]:
    """Search by blocks of products of images that are sorted by camera; n stands for nobody."""
    n = len(x)
    near, far = np.full((n, own), n, dtype=np.int32), np.full((n, cross), n, dtype=np.int32)
    bounds = np.searchsorted(cameras, np.arange(int(cameras.max()) + 2)).tolist()
    step = max(1, _BLOCK // n)
    blocks = [(*camera, first) for camera in pairwise(bounds) for first in range(*camera, step)]
    for low, high, first in blocks[team.rank :: team.size]:
        rows = slice(first, min(first + step, high))
        products = x[rows] @ x.T
        inside = products[:, low:high]
        inside.diagonal(first - low).fill_(np.inf)  # copies of an image do not come before it
        k = min(own, high - low)
        near[rows, :k] = low + as_numpy(inside.topk(k, dim=1).indices)
        inside.fill_(-np.inf)
        k = min(cross, n - (high - low))
        far[rows, :k] = as_numpy(products.topk(k, dim=1).indices)
    return (np.minimum.reduce(part) for part in zip(*team.join((near, far)), strict=True))
