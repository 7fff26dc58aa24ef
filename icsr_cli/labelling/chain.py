"""Features -> evidence -> clusters -> refiners -> labels: one way for both stages and every command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from icsr_cli.choices import Options
from icsr_cli.clusterers.cohesion import cohesion_of
from icsr_cli.clusterers.silhouette import silhouette_of
from icsr_cli.distances.normalisation import Normalisation
from icsr_cli.labelling.evidence import KnownEvidence
from icsr_cli.types import NO_CLUSTER, Evidence, IntArray, Labels


class LabelMethods(Protocol):
    """The settings of the chain: how features become comparable, and the methods that are chosen."""

    @property
    def normalise(self) -> Normalisation | Literal["auto"]:
        """What is taken off the features of each camera."""

    @property
    def distance(self) -> Options:
        """A method of ``distances``."""

    @property
    def clusterer(self) -> Options:
        """A method of ``clusterers``."""

    @property
    def refiners(self) -> Sequence[Options]:
        """Methods of ``refiners``, in order."""


def gather(features: Any, settings: LabelMethods, **facts: Any) -> KnownEvidence:
    """Give the evidence of features (n, d) for ``label``; ``facts`` as ``KnownEvidence`` takes them."""
    methods = (settings.distance, settings.clusterer, *settings.refiners)
    most = max(method.neighbours for method in methods)
    return KnownEvidence(features, settings.distance, most, settings.normalise, **facts)


def label(evidence: Evidence, settings: LabelMethods) -> Labels:
    """Cluster the images and let the refiners work on the clusters, in order.

    The labels hold the column ``cohesion`` (each image's mean similarity to the others of its cluster, before
    the refiners) and the figure ``silhouette``; and, where cameras are known, ``camera_nmi``: how much the
    labels tell of the camera (0 nothing, 1 everything). Where normalisation is ``auto``, also
    ``camera_effect``, the share of the cameras' difference that is theirs, and ``normalised``, 1 or 0.
    """
    clusters = settings.clusterer.module.cluster(evidence, settings.clusterer)
    labels = replace(
        Labels.of(clusters),
        columns={"cohesion": cohesion_of(evidence.similarity, clusters)},
        figures={"silhouette": silhouette_of(evidence.similarity, clusters)},
    )
    for refiner in settings.refiners:
        labels = refiner.module.refine(evidence, labels, refiner)
    if evidence.cameras is None:
        return labels
    told = _shared_information(labels.labels, evidence.cameras)
    return replace(labels, figures={**labels.figures, "camera_nmi": told, **_choice(evidence)})


def _choice(evidence: Evidence) -> dict[str, float]:
    if not isinstance(evidence, KnownEvidence) or evidence.normalise != "auto":
        return {}
    return {"camera_effect": evidence.effect.share, "normalised": float(evidence.effect.mode == "full")}


def _shared_information(labels: IntArray, cameras: IntArray) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    kept = labels != NO_CLUSTER
    return float(normalized_mutual_info_score(cameras[kept], labels[kept])) if np.any(kept) else 0.0
