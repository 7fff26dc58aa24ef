"""A memory of clusters in which an image counts by how many cameras see its cluster in the batch.

Camera-entropy weights and the camera-aware update (3C, arXiv 2408.09464): a cluster whose images of a batch
come from many cameras in equal shares teaches most across cameras. Needs cameras. A batch of one camera is
that of the plain memory.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from icsr_cli import choices
from icsr_cli.memories.clusters import ClusterMemory, centroids_of, targets_of
from icsr_cli.types import Epoch


class Options(choices.Options):
    """Those of ``clusters``; ``update`` by every sample, the hardest, or the hardest for its camera.

    ``hard`` takes the sample of each cluster that is least like its centroid; ``camera-hard`` the one that is
    far from its centroid and yet typical of what its own camera shows of the cluster.
    """

    weight: float = Field(1.0, gt=0)
    temperature: float = Field(0.05, gt=0)
    momentum: float = Field(0.1, ge=0, lt=1)
    update: Literal["samples", "hard", "camera-hard"] = "samples"
    singles: bool = False
    needs: ClassVar[frozenset[str]] = frozenset({"cameras"})


class Memory:
    """One centroid per cluster of the epoch's labels, asked by image."""

    def __init__(self, epoch: Epoch, options: Options) -> None:
        self.options = options
        self.targets = targets_of(epoch, options.singles)
        self.cameras = torch.from_numpy(epoch.cameras)
        self.clusters = ClusterMemory(
            centroids_of(epoch.features, self.targets),
            options.temperature,
            options.momentum,
            hard=options.update == "hard",
        )

    def loss(self, features: Tensor, images: Tensor) -> Tensor:
        """Mean of w times cross-entropy over features (b, d); ``images`` int64 (b,), on the host."""
        targets = self.targets[images]
        losses = self.clusters.loss(features, targets, reduction="none")
        weights = entropy_weights(targets, self.cameras[images]).to(losses.device, non_blocking=True)
        return (weights * losses).mean()

    def update(self, features: Tensor, images: Tensor) -> None:
        """Move the centroids of the clusters of ``images``, int64 (b,), by their features, float (b, d)."""
        targets = self.targets[images]
        if self.options.update != "camera-hard":
            self.clusters.update(features, targets)
            return
        unit = normalize(features.detach().float(), dim=1)
        typical = camera_means(unit, targets, self.cameras[images])

        def score(unit: Tensor, own: Tensor) -> Tensor:
            # a: far from the centroid; b: like what its camera shows. Least where d = a b / (a + b) is most.
            a, b = 1 - (unit * own).sum(dim=1), 1 + (unit * typical).sum(dim=1)
            return -a * b / (a + b).clamp(min=1e-12)

        self.clusters.update_least(unit, targets, score)


def entropy_weights(targets: Tensor, cameras: Tensor) -> Tensor:
    """Give the weight of each image of a batch, float32 (b,) on the host (arXiv 2408.09464).

    With L clusters in the batch, p_y(c) the share of the images of y under camera c and H_y = -sum p log2 p,
    an image of y weighs L exp(H_y) / sum of exp(H) over the clusters. ``targets`` and ``cameras`` int64 (b,).
    """
    pairs, of_pair, count = torch.unique(
        torch.stack([targets, cameras]), dim=1, return_inverse=True, return_counts=True
    )
    clusters, of_cluster = torch.unique(pairs[0], return_inverse=True)
    sizes = torch.zeros(len(clusters)).index_add_(0, of_cluster, count.float())
    share = count / sizes[of_cluster]
    entropy = torch.zeros(len(clusters)).index_add_(0, of_cluster, -share * share.log2())
    return (len(clusters) * entropy.softmax(dim=0))[of_cluster][of_pair]


def camera_means(unit: Tensor, targets: Tensor, cameras: Tensor) -> Tensor:
    """Give, for each image, the unit mean of the batch's images of its cluster under its camera: (b, d)."""
    pairs, of_pair = torch.unique(torch.stack([targets, cameras]), dim=1, return_inverse=True)
    of_pair = of_pair.to(unit.device, non_blocking=True)
    sums = unit.new_zeros((pairs.shape[1], unit.shape[1])).index_add_(0, of_pair, unit)
    return normalize(sums, dim=1)[of_pair]
