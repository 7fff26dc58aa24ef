"""Which images go into which batch: identities in random order, a few images of each across cameras."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from icsr_cli import choices
from icsr_cli.checks import check_count, whole_numbers
from icsr_cli.errors import TrainingError
from icsr_cli.types import NO_CLUSTER, BoolArray, Epoch, IntArray


class Options(choices.Options):
    """Which clusters an epoch draws from, and how.

    ``published``: exactly ``num_instances - 1`` others are drawn with replacement, as the published code
    does. ``share``: of the clusters, drawn anew in each epoch; the others rest. A cluster that holds two
    people teaches the network that they are one; where it rests, they may come apart. None rests where an
    epoch has not the images to pass all clusters ``passes`` times.
    """

    published: bool = False
    share: float = Field(1.0, gt=0, le=1)
    passes: float = Field(0.0, ge=0)


def batches(epoch: Epoch, options: Options, **drawn: Any) -> IntArray:
    """Draw the batches of an epoch by its labels: int64 (iters, batch_size), numbers of its images.

    ``drawn``: batch_size, num_instances, iters and generator, as ``identity_batches`` takes them.
    """
    labels = epoch.labels.labels
    turns = drawn["iters"] * drawn["batch_size"] / drawn["num_instances"]
    if options.share < 1 and turns >= options.passes * epoch.labels.n_clusters:
        labels = some_of(labels, options.share, drawn["generator"])
    return identity_batches(labels, epoch.cameras, published=options.published, **drawn)


def some_of(labels: IntArray, share: float, generator: np.random.Generator) -> IntArray:
    """Keep a share of the clusters, rounded up, drawn at random; -1 for images of the others: int64 (n,)."""
    clusters = np.unique(labels[labels >= 0])
    kept = generator.permutation(clusters)[: math.ceil(round(share * len(clusters), 6))]
    return np.where(np.isin(labels, kept), labels, NO_CLUSTER)


def identity_batches(
    labels: npt.ArrayLike,
    cameras: npt.ArrayLike,
    *,
    batch_size: int,
    num_instances: int,
    iters: int,
    generator: np.random.Generator,
    published: bool = False,
) -> IntArray:
    """Draw the batches of an epoch: int64 (iters, batch_size), rows of the images.

    Each pass takes the identities in random order; of each a random anchor, then ``num_instances - 1``
    images from other cameras than the anchor's (with replacement where there are fewer), or, where there
    are none, from its other images; an identity of one image gives that image alone. A pass is cut into
    batches in that order and its last partial batch is dropped; passes follow until there are ``iters``
    batches. Where one pass is shorter than a batch, as many as needed are joined first.

    Args:
        labels: int (n,), the pseudo identity of each image; below 0 is never drawn.
        cameras: int (n,).
        batch_size: images in a batch, at least 1.
        num_instances: images of an identity in a row, at least 1.
        iters: number of batches, at least 0.
        generator: where every draw comes from.
        published: draw with replacement where there are exactly as many others, too.

    Raises:
        InputError: shapes, types or numbers do not fit.
        TrainingError: no image has a label.
    """
    labels = whole_numbers("labels", labels, low=None)
    cameras = whole_numbers("cameras", cameras, len(labels), low=None)
    check_count("batch_size", batch_size)
    check_count("num_instances", num_instances)
    check_count("iters", iters, low=0)
    if not (labels >= 0).any():
        raise TrainingError(
            f"none of the {len(labels)} images is in a cluster, so there is nothing to train on. "
            "Loosen the clustering (a larger eps or distance threshold, a smaller min_samples)."
        )
    groups = _group(labels, cameras)
    per_pass = int(np.where(groups.count > 1, num_instances, 1).sum())  # the same in each pass
    joined = -(-batch_size // per_pass)  # passes in a row, so that they fill at least one batch
    per_row = joined * per_pass // batch_size
    batches = np.empty((iters, batch_size), dtype=np.int64)
    for first in range(0, iters, per_row):
        rows = _passes(groups, joined, num_instances, generator, published=published)
        whole = rows[: per_row * batch_size].reshape(per_row, batch_size)
        batches[first : first + per_row] = whole[: iters - first]
    return batches


@dataclass(frozen=True, slots=True)
class _Groups:
    """Labelled rows sorted by identity, then camera; where each identity and each camera of it lies.

    ``start`` and ``count`` are per identity; ``camera_start`` and ``camera_end`` per sorted row.
    """

    rows: IntArray
    start: IntArray
    count: IntArray
    camera_start: IntArray
    camera_end: IntArray


def _group(labels: IntArray, cameras: IntArray) -> _Groups:
    kept = np.flatnonzero(labels >= 0)
    rows = kept[np.lexsort((cameras[kept], labels[kept]))]
    label, camera = labels[rows], cameras[rows]
    new_label = np.r_[True, label[1:] != label[:-1]]
    start, end = _runs(new_label)
    camera_start, camera_end = _runs(new_label | np.r_[True, camera[1:] != camera[:-1]])
    length = camera_end - camera_start
    return _Groups(rows, start, end - start, np.repeat(camera_start, length), np.repeat(camera_end, length))


def _runs(begins: BoolArray) -> tuple[IntArray, IntArray]:
    """Start and end of each run; ``begins`` marks the first element of every run."""
    start = np.flatnonzero(begins)
    return start, np.r_[start[1:], len(begins)]


def _passes(
    groups: _Groups, passes: int, num_instances: int, generator: np.random.Generator, *, published: bool
) -> IntArray:
    """Rows of ``passes`` passes, one after the other."""
    order = np.tile(np.arange(len(groups.start)), (passes, 1))
    identity = generator.permuted(order, axis=1).ravel()
    start, count = groups.start[identity], groups.count[identity]
    anchor = start + generator.integers(0, count)
    # The candidates are the identity's rows but for one block: the anchor's camera, or, where the
    # identity has no other camera, the anchor itself.
    block, block_end = groups.camera_start[anchor], groups.camera_end[anchor]
    alone = block_end - block == count
    block, block_end = np.where(alone, anchor, block), np.where(alone, anchor + 1, block_end)
    size = count - (block_end - block)
    picked = start[:, None] + _choose(size, num_instances - 1, generator, published=published)
    picked += np.where(picked >= block[:, None], (block_end - block)[:, None], 0)
    drawn = np.concatenate((anchor[:, None], picked), axis=1)
    valid = np.ones(drawn.shape, dtype=bool)
    valid[:, 1:] = (size > 0)[:, None]
    rows: IntArray = groups.rows[drawn[valid]]
    return rows


def _choose(size: IntArray, k: int, generator: np.random.Generator, *, published: bool = False) -> IntArray:
    """Choose k of ``range(size[i])`` for each i, in random order: int64 (len(size), k).

    Without replacement where ``size[i] >= k`` (``> k`` as published). Where it is 0 the row has no meaning.
    """
    repeat = (size <= k if published else size < k)[:, None]
    independent = generator.integers(0, np.maximum(size, 1)[:, None], size=(len(size), k))
    distinct = np.empty((len(size), k), dtype=np.int64)
    for j in range(k):
        # Uniform among those not taken yet: count past the taken ones, in ascending order.
        pick = generator.integers(0, np.maximum(size - j, 1))
        for taken in np.sort(distinct[:, :j], axis=1).T:
            pick += pick >= taken
        distinct[:, j] = pick
    return np.where(repeat, independent, distinct)
