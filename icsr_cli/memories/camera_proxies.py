"""A proxy for each cluster and camera: what one person looks like under one camera.

Camera-aware proxies (Wang et al., AAAI 2021, arXiv 2012.10674): an image is pulled to its own proxy among
those of its camera (intra), and to those of its cluster under other cameras against the nearest of other
clusters (inter); the latter also in the form of ICE (Chen et al., ICCV 2021, arXiv 2103.16364). Unlike the
authors' code the losses are means over images, so that their scale does not follow the draw of a batch.

By choice an image is also pulled to the proxies that look like it under several cameras, of whatever cluster
(association of O2CAP, Wang et al., arXiv 2201.05820): a person whose images lie in two clusters is found.

Needs cameras. A cluster that one camera alone sees has no inter loss. Belongs beside a memory of clusters.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from icsr_cli import choices
from icsr_cli.memories.clusters import ClusterMemory, centroids_of, targets_of
from icsr_cli.types import NO_CLUSTER, Epoch

#: A similarity that weighs nothing in a softmax; unlike an infinite one it has a gradient.
_NOTHING = -1e4


class Options(choices.Options):
    """Weights of the two losses, the softmax, the update, and the positives of the inter loss.

    ``positives``: the proxies of the image's cluster under ``others`` cameras, or its ``own`` proxy alone.
    ``form``: each positive against the negatives (``ice``), or all in one softmax (``joint``, as CAP).
    ``negatives``: the nearest proxies of other clusters that count. ``momentum``: share of the old proxy.
    ``association``: weight of the loss across clusters; ``associated``: the proxies it pulls to, each the
    best of its camera, judged for a share ``trust`` by the image and for the rest by its own proxy.
    ``singles``: the images in no cluster are proxies too, each by itself, and so negatives.
    """

    weight: float = Field(1.0, gt=0)
    intra: float = Field(1.0, ge=0)
    inter: float = Field(1.0, ge=0)
    temperature: float = Field(0.07, gt=0)
    momentum: float = Field(0.2, ge=0, lt=1)
    positives: Literal["others", "own"] = "others"
    form: Literal["ice", "joint"] = "ice"
    negatives: int = Field(50, ge=1)
    association: float = Field(0.0, ge=0)
    associated: int = Field(3, ge=1)
    trust: float = Field(0.15, ge=0, le=1)
    singles: bool = False
    needs: ClassVar[frozenset[str]] = frozenset({"cameras"})


class Memory:
    """The proxies of an epoch: unit float32 (m, d), ``clusters`` and ``cameras`` int64 (m,)."""

    def __init__(self, epoch: Epoch, options: Options) -> None:
        self.options = options
        self.cluster_of = targets_of(epoch, options.singles)
        self.camera_of = torch.from_numpy(epoch.cameras)
        kept = self.cluster_of != NO_CLUSTER
        pairs = torch.stack([self.cluster_of[kept], self.camera_of[kept]])
        present, which = torch.unique(pairs, dim=1, return_inverse=True)
        self.proxy_of = torch.full_like(self.cluster_of, NO_CLUSTER)
        self.proxy_of[kept] = which
        # Cameras that have a proxy, numbered without gaps.
        seen, self.camera_number = torch.unique(present[1], return_inverse=True)
        self.n_cameras = len(seen)
        self.clusters, self.cameras = present.to(epoch.features.device)
        self.camera_number = self.camera_number.to(epoch.features.device)
        self.proxies = ClusterMemory(
            centroids_of(epoch.features, self.proxy_of), options.temperature, options.momentum
        )

    def loss(self, features: Tensor, images: Tensor) -> Tensor:
        """Weighted intra and inter loss of float features (b, d); ``images`` int64 (b,), on the host."""
        device, options = features.device, self.options
        own, cluster, camera = (
            of[images].to(device, non_blocking=True)
            for of in (self.proxy_of, self.cluster_of, self.camera_of)
        )
        with torch.autocast(device.type, enabled=False):
            unit = normalize(features.float(), dim=1)
            similarity = unit @ self.proxies.centroids.T / options.temperature
            elsewhere = self.cameras != camera[:, None]
            intra = cross_entropy(similarity.masked_fill(elsewhere, _NOTHING), own)
            same = self.clusters == cluster[:, None]
            if options.positives == "others":
                positive = same & elsewhere
            else:
                positive = torch.nn.functional.one_hot(own, len(self.clusters)).bool()
            inter = _inter(similarity, positive, same, options, options.form)
            loss = options.intra * intra + options.inter * inter
            if options.association:
                found = self._associated(unit.detach(), own)
                across = _inter(similarity, found, same | found, options, "joint")
                loss = loss + options.association * across
            return loss

    def _associated(self, unit: Tensor, own: Tensor) -> Tensor:
        """Mark, for each of the unit features (b, d), the proxies that look like it: bool (b, m).

        Of each camera the best, the first on a tie; of these the best ``associated``.
        """
        proxies, trust = self.proxies.centroids, self.options.trust
        likeness = trust * unit @ proxies.T + (1 - trust) * proxies[own] @ proxies.T
        cameras = self.camera_number.expand_as(likeness)
        best = likeness.new_full((len(unit), self.n_cameras), -torch.inf)
        best = best.scatter_reduce(1, cameras, likeness, "amax")
        places = torch.arange(len(proxies), device=unit.device).expand_as(likeness)
        beaten = likeness < best.gather(1, cameras)
        last = torch.full_like(best, len(proxies) - 1, dtype=torch.int64)
        first = last.scatter_reduce(1, cameras, places.masked_fill(beaten, len(proxies) - 1), "amin")
        nearest = best.topk(min(self.options.associated, self.n_cameras), dim=1).indices
        marked = torch.zeros_like(likeness, dtype=torch.bool)
        return marked.scatter(1, first.gather(1, nearest), value=True)

    def update(self, features: Tensor, images: Tensor) -> None:
        """Move the proxies of ``images``, int64 (b,), by features (b, d): P <- unit(m P + (1 - m) f)."""
        self.proxies.update(features, self.proxy_of[images])


def _inter(similarity: Tensor, positive: Tensor, same: Tensor, options: Options, form: str) -> Tensor:
    """Give the mean over the images that have a positive, 0 where none has.

    ``similarity`` float (b, m), over the temperature; ``positive`` and ``same`` (no negatives) bool.
    """
    others = similarity.masked_fill(same, _NOTHING)
    nearest = others.topk(min(options.negatives, others.shape[1]), dim=1).values.logsumexp(dim=1)
    against = nearest[:, None]
    if form == "joint":
        pulled = similarity.masked_fill(~positive, _NOTHING).logsumexp(dim=1, keepdim=True)
        denominator = torch.logaddexp(pulled, against)
    else:
        denominator = torch.logaddexp(similarity, against)
    count = positive.sum(dim=1)
    of_image = ((denominator - similarity) * positive).sum(dim=1) / count.clamp(min=1)
    return of_image.sum() / (count > 0).sum().clamp(min=1)
