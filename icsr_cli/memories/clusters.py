"""Cluster memory: one centroid per cluster, the contrastive loss against them, an explicit update.

Source: Cluster Contrast (Dai et al., arXiv 2103.11568), eq. 1 (loss), 2 and 3 (update).
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from icsr_cli import choices
from icsr_cli.errors import InputError
from icsr_cli.types import NO_CLUSTER, Epoch


class Options(choices.Options):
    """Temperature of the softmax, share of the old centroid in an update, and which samples update.

    ``hard``: only the sample of each cluster that is least like its centroid. ``weight``: of this loss among
    several. ``singles``: the images in no cluster are centroids too, each by itself, that all are pushed off
    from (SpCL, Ge et al., NeurIPS 2020, arXiv 2006.02713).
    """

    weight: float = Field(1.0, gt=0)
    temperature: float = Field(0.05, gt=0)
    momentum: float = Field(0.1, ge=0, lt=1)
    hard: bool = False
    singles: bool = False


class Memory:
    """One centroid per cluster of the epoch's labels, asked by image."""

    def __init__(self, epoch: Epoch, options: Options) -> None:
        self.targets = targets_of(epoch, options.singles)
        centroids = centroids_of(epoch.features, self.targets)
        self.clusters = ClusterMemory(centroids, options.temperature, options.momentum, options.hard)

    def loss(self, features: Tensor, images: Tensor) -> Tensor:
        """Mean cross-entropy of features (b, d) against all centroids; ``images`` int64 (b,), on the host."""
        return self.clusters.loss(features, self.targets[images])

    def update(self, features: Tensor, images: Tensor) -> None:
        """Move the centroids of the clusters of ``images``, int64 (b,), by their features, float (b, d)."""
        self.clusters.update(features, self.targets[images])


def targets_of(epoch: Epoch, singles: bool) -> Tensor:
    """Give the cluster of each image, int64 (n,), on the host; with ``singles`` nobody is in none.

    An image that is in no cluster has a number of its own then, behind those of the clusters.
    """
    labels = epoch.labels.labels.copy()
    if singles:
        alone = labels == NO_CLUSTER
        labels[alone] = epoch.labels.n_clusters + np.arange(alone.sum())
    return torch.from_numpy(labels)


class ClusterMemory:
    """Centroids of m clusters, and the loss that pulls features to their own.

    Args:
        centroids: float (m, d), of unit length; copied, kept as float32 on its device.
        temperature: divisor of the similarities, above 0.
        momentum: share of the old centroid that an update keeps, 0 to 1.
        hard: update once per cluster in the batch, with the sample least similar to its centroid.

    Raises:
        InputError: a shape or a value out of range.
    """

    def __init__(
        self, centroids: Tensor, temperature: float = 0.05, momentum: float = 0.1, hard: bool = False
    ) -> None:
        centroids = torch.as_tensor(centroids)
        if centroids.dim() != 2 or centroids.shape[0] == 0 or not centroids.is_floating_point():
            raise InputError(
                f"centroids: expected float (m, d) with m >= 1, got {centroids.dtype} "
                f"{tuple(centroids.shape)}."
            )
        if not temperature > 0:
            raise InputError(f"temperature: expected a number above 0, got {temperature}.")
        if not 0 <= momentum <= 1:
            raise InputError(f"momentum: expected a number from 0 to 1, got {momentum}.")
        self.centroids = centroids.detach().float().clone()
        self.temperature = temperature
        self.momentum = momentum
        self.hard = hard

    def __len__(self) -> int:
        return self.centroids.shape[0]

    def loss(self, features: Tensor, targets: Tensor, reduction: Literal["mean", "none"] = "mean") -> Tensor:
        """Cross-entropy of f C^T / temperature, float32, with the gradient for ``features``.

        Args:
            features: float (b, d), of any length: they are normalised here.
            targets: int (b,), the cluster of each, 0 to m - 1. On the CPU they are checked; on another
                device they are not, so as not to wait for it.
            reduction: ``mean`` over the features, or ``none``: of each, (b,).

        Raises:
            InputError: shapes, types or targets do not fit.
        """
        features, targets = self._checked(features, targets)
        with torch.autocast(features.device.type, enabled=False):
            unit = normalize(features.float(), dim=1)
            logits = unit @ self.centroids.T / self.temperature
            targets = targets.long().to(logits.device, non_blocking=True)
            return cross_entropy(logits, targets, reduction=reduction)

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor) -> None:
        """Move the centroids of the batch: for each sample in order c <- unit(m c + (1 - m) f).

        Arguments and errors as in ``loss``. With targets on the CPU nothing waits for the device.
        """
        features, targets = self._checked(features, targets)
        unit = normalize(features.detach().float(), dim=1)
        targets = targets.long()
        if self.hard:
            self.update_least(unit, targets, lambda unit, own: (unit * own).sum(dim=1))
            return
        # Samples of one cluster come one after the other, different clusters do not touch: so round r
        # takes the r-th sample of every cluster at once.
        order, sizes = _rounds(targets)
        rows = order.to(unit.device, non_blocking=True)
        clusters = targets[order].to(unit.device, non_blocking=True)
        for row, cluster in zip(torch.split(rows, sizes), torch.split(clusters, sizes), strict=True):
            self._blend(cluster, unit[row])

    def _blend(self, clusters: Tensor, unit: Tensor) -> None:
        """Move distinct clusters, each by one feature."""
        old = self.centroids[clusters]
        new = self.momentum * old + (1 - self.momentum) * unit
        self.centroids.index_copy_(0, clusters, normalize(new, dim=1))

    @torch.no_grad()
    def update_least(self, unit: Tensor, targets: Tensor, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Move each cluster in the batch once, by its sample of the least score (the first, on a tie).

        ``score`` gives float (b,) of unit features (b, d) and their own centroids (b, d).
        """
        present, inverse = torch.unique(targets, return_inverse=True)
        present, inverse = (part.to(unit.device, non_blocking=True) for part in (present, inverse))
        scores = score(unit, self.centroids[present][inverse])
        least = scores.new_full((len(present),), torch.inf)
        least.scatter_reduce_(0, inverse, scores, "amin")
        last = len(scores) - 1
        row = torch.arange(last + 1, device=unit.device)
        # Where no row is the least one (NaN), the last row stands in, so that no index leaves the batch.
        candidate = torch.where(scores == least[inverse], row, last)
        rows = torch.full_like(present, last).scatter_reduce_(0, inverse, candidate, "amin")
        self._blend(present, unit[rows])

    def _checked(self, features: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Give both as tensors, numpy arrays too, or raise an InputError."""
        features, targets = torch.as_tensor(features), torch.as_tensor(targets)
        m, d = self.centroids.shape
        if features.dim() != 2 or features.shape[1] != d or not features.is_floating_point():
            raise InputError(
                f"features: expected float (b, {d}), the width of the centroids, got {features.dtype} "
                f"{tuple(features.shape)}."
            )
        if targets.shape != features.shape[:1] or targets.is_floating_point() or targets.dtype == torch.bool:
            raise InputError(
                f"targets: expected int ({features.shape[0]},), one cluster per feature, got "
                f"{targets.dtype} {tuple(targets.shape)}."
            )
        if features.shape[0] == 0:
            raise InputError("features: the batch is empty; expected at least one sample.")
        if targets.device.type == "cpu":
            low, high = int(targets.min()), int(targets.max())
            if low < 0 or high >= m:
                raise InputError(f"targets: expected clusters from 0 to {m - 1}, got {low} to {high}.")
        return features, targets


def _rounds(targets: Tensor) -> tuple[Tensor, list[int]]:
    """Rows sorted by how many earlier rows have the same target, and the number of rows of each rank."""
    by_cluster = targets.argsort(stable=True)
    grouped = targets[by_cluster]
    first = torch.searchsorted(grouped, grouped)
    rank = torch.empty_like(targets)
    rank[by_cluster] = torch.arange(len(targets), device=targets.device) - first
    return rank.argsort(stable=True), rank.bincount().tolist()


def centroids_of(features: Tensor, labels: Any) -> Tensor:
    """Mean of each cluster's features, L2-normalised: float32 (m, d) on the features' device.

    Args:
        features: float (n, d).
        labels: int (n,), numpy or torch: clusters 0 to m - 1, each with at least one image; rows below 0
            are in no cluster.

    Raises:
        InputError: shapes do not fit, there is no cluster, or a number is left out.
    """
    labels = torch.as_tensor(labels)
    if features.dim() != 2 or labels.shape != features.shape[:1] or labels.is_floating_point():
        raise InputError(
            f"labels: expected int (n,) for features (n, d), got {labels.dtype} {tuple(labels.shape)} for "
            f"{tuple(features.shape)}."
        )
    kept = (labels >= 0).nonzero().squeeze(1)
    if len(kept) == 0:
        raise InputError("labels: all are below 0, so there is no cluster; expected at least one.")
    clusters = labels[kept].long()
    counts = clusters.bincount()
    empty = (counts == 0).nonzero().squeeze(1).tolist()
    if empty:
        raise InputError(
            f"labels: {len(empty)} numbers below {len(counts)} have no image (the first is {empty[0]}). "
            "Number the clusters from 0 without gaps."
        )
    device = features.device
    rows = features[kept.to(device)].float()
    sums = rows.new_zeros((len(counts), rows.shape[1])).index_add_(0, clusters.to(device), rows)
    return normalize(sums / counts.to(device).unsqueeze(1), dim=1)
