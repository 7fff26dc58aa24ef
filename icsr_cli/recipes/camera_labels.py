"""The labels of each camera on its own, as the cam stage finds, keeps and joins them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from icsr_cli.errors import RunError
from icsr_cli.metrics import judge
from icsr_cli.runs import LabelTable, tabulate
from icsr_cli.types import NO_CLUSTER, IntArray, Labels, Split


@dataclass
class CameraLabels:
    """The best labels of one camera so far: those of the epoch with the highest silhouette."""

    camera: int
    rows: IntArray
    labels: IntArray
    silhouette: float = -np.inf
    epoch: int = 0

    @classmethod
    def none(cls, split: Split, camera: int) -> CameraLabels:
        """Give the images of a camera before anything is known of them."""
        rows = np.flatnonzero(split.cameras == camera)
        return cls(camera, rows, np.full(len(rows), NO_CLUSTER, dtype=np.int64))

    def offer(self, labels: IntArray, silhouette_: float, epoch: int) -> None:
        """Take the labels of an epoch, int64 (n,), if they are better than what there is."""
        value = silhouette_ if np.isfinite(silhouette_) else -1.0
        if value > self.silhouette:
            self.labels, self.silhouette, self.epoch = labels, value, epoch


def join(split: Split, found: Iterable[CameraLabels]) -> LabelTable:
    """Put the cameras together: local numbers from 0 under each, cluster numbers different everywhere."""
    local = np.full(len(split), NO_CLUSTER, dtype=np.int64)
    clusters = local.copy()
    used = 0
    for labels in found:
        local[labels.rows] = labels.labels
        clusters[labels.rows] = np.where(labels.labels >= 0, labels.labels + used, NO_CLUSTER)
        used += int(labels.labels.max(initial=NO_CLUSTER)) + 1
    return tabulate(split, Labels.of(clusters), local=local)


def states_of(found: Sequence[CameraLabels]) -> dict[str, Any]:
    """Give what a checkpoint holds of the labels of cameras."""
    return {
        str(own.camera): {
            "labels": torch.from_numpy(own.labels),
            "silhouette": own.silhouette,
            "epoch": own.epoch,
        }
        for own in found
    }


def restore(found: Sequence[CameraLabels], states: dict[str, Any]) -> None:
    """Put back what ``states_of`` gave. Raises RunError where it is of other cameras."""
    for own in found:
        state = states.get(str(own.camera))
        if state is None:
            raise RunError(
                f"The checkpoint of camera {own.camera} holds other cameras' labels. Put its own there, or "
                "remove it to start anew."
            )
        own.labels = state["labels"].numpy()
        own.silhouette, own.epoch = state["silhouette"], state["epoch"]


def figures_of(split: Split, found: Sequence[CameraLabels], current: Sequence[Labels]) -> dict[str, Any]:
    """Say per camera what its labels are, and against the truth where it is known (shown, never used)."""
    cameras = {}
    for labels, now in zip(found, current, strict=True):
        own: dict[str, Any] = {"clusters": now.n_clusters, "silhouette": now.figures["silhouette"]}
        own["best_epoch"] = labels.epoch
        if (judged := judge(now.labels, split.identities[labels.rows])) is not None:
            own["quality"] = judged.as_dict()
        cameras[str(labels.camera)] = own
    figures: dict[str, Any] = {
        "clusters": sum(own["clusters"] for own in cameras.values()),
        "silhouette": float(np.mean([own["silhouette"] for own in cameras.values()])),
        "cameras": cameras,
    }
    if nmi := [own["quality"]["nmi"] for own in cameras.values() if "quality" in own]:
        figures["nmi"] = float(np.mean(nmi))
    return figures
