"""What is known of the images: given facts, and what follows from the features, each computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from icsr_cli.checks import as_numpy
from icsr_cli.choices import Options
from icsr_cli.clusterers.similarity import check_similarity
from icsr_cli.distances import knn
from icsr_cli.distances.camera_effect import CameraEffect, camera_effect
from icsr_cli.distances.normalisation import Normalisation, normalise_cameras
from icsr_cli.errors import InputError
from icsr_cli.labelling import constraints
from icsr_cli.types import ALONE, IntArray, Neighbours, Pairs, Team


@dataclass(frozen=True)
class KnownEvidence:
    """The evidence of n images (see ``icsr_cli.types.Evidence``).

    Args:
        given: float (n, d), numpy or torch: the network's features.
        distance: the options of a method of ``distances``.
        most: neighbours that will be asked for at most, so that one search serves all.
        normalise: what is taken off the features of each camera before anything is compared (arXiv
            2502.10195): ``none``, its mean (``centre``), or its mean and spread (``full``); ``auto``: full or
            none, as ``camera_effect`` says.
        cameras, local, tracks, frames, previous: int64 (n,) or None, as the protocol says.
        pairs: what somebody said of pairs of images, or None.
        device: where neighbours are searched; default: where the features are.
        approximate: a search that may miss some of them, see ``knn``.
        least: the smallest similarity that anybody will read; pairs below it are not stored.
        team: processes that compute neighbours and similarity together; each has the same evidence, calls
            ``compute_together`` once, and the leader then has everything.

    Raises:
        InputError: features that cannot be compared, or do not fit the other facts.
    """

    given: Any
    distance: Options
    most: int = 1
    normalise: Normalisation | Literal["auto"] = "none"
    cameras: IntArray | None = None
    local: IntArray | None = None
    tracks: IntArray | None = None
    frames: IntArray | None = None
    previous: IntArray | None = None
    pairs: Pairs | None = None
    device: Any = None
    approximate: Any = None
    least: float = 0.0
    team: Team = ALONE

    def __len__(self) -> int:
        return len(self.given)

    @cached_property
    def features(self) -> Any:
        """Features as they are compared: normalised per camera where that was chosen."""
        if self.normalise == "none":
            return self.given
        if self.cameras is None:
            raise InputError(f"normalise = {self.normalise} needs the camera of each image.")
        mode = self.normalise if self.normalise != "auto" else self.effect.mode
        found = normalise_cameras(self.given, self.cameras, mode)
        gone = int((~(found != 0).any(1)).sum()) if mode != "none" else 0
        if gone:
            raise InputError(
                f"normalise = {mode} leaves nothing of {gone:,} of {len(found):,} images: their features are "
                "the mean of all. Take more images that differ, or set normalise to none."
            )
        return found

    @cached_property
    def effect(self) -> CameraEffect:
        """Whether the cameras are apart, or their people; ``auto`` goes by it."""
        return camera_effect(self.given, self.cameras)

    @cached_property
    def nearest(self) -> Neighbours:
        """The neighbours of the one search, by cosine."""
        return self._search(max(1, min(self.most, len(self))), self.team)

    def _search(self, k: int, team: Team) -> Neighbours:
        how: dict[str, Any] = {"device": self.device, "approximate": self.approximate, "team": team}
        return knn(self.features, k, metric="cosine", **how)

    def compute_together(self) -> None:
        """Compute with the other processes what takes long; only the leader goes on from there.

        Everything that is asked for later it computes alone: nobody else would come.
        """
        if self.most > 0:
            _ = self.nearest
        _ = self.computed

    def neighbours(self, k: int) -> Neighbours:
        """Give the k nearest by cosine, self included; all n where there are fewer."""
        k = min(k, len(self))
        near = self.nearest
        if k > near.k:
            return self._search(k, ALONE)
        return near.first(k)

    def means(self, groups: IntArray) -> KnownEvidence:
        """Give the evidence of groups 0..m-1 of the images, (n,), by their mean features, unit (m, d)."""
        rows = np.flatnonzero(groups >= 0)
        entries = (np.ones(len(rows), dtype=np.float32), (groups[rows], np.arange(len(rows))))
        member = sp.csr_array(entries, shape=(int(groups.max()) + 1, len(rows)))
        means = member @ as_numpy(self.features[rows])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return KnownEvidence(means, self.distance, self.most, device=self.device)

    @cached_property
    def computed(self) -> sp.csr_array:
        """What the method of ``distances`` gives; of several processes the leader's is whole."""
        found: sp.csr_array = self.distance.module.similarity(self, self.distance)
        return found

    @cached_property
    def similarity(self) -> sp.csr_array:
        """1 - distance, sparse (n, n), checked once; between images that are known to differ it is 0."""
        found = check_similarity(self.computed)
        return found if self.pairs is None else constraints.write_in(found, self.pairs)
