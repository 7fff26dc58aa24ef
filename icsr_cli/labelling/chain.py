"""Features -> evidence -> clusters -> refiners -> labels: one way for both stages and every command."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from icsr_cli.choices import Options
from icsr_cli.clusterers.measures import cohesion_of, silhouette_of
from icsr_cli.distances.normalisation import Normalisation
from icsr_cli.errors import InputError
from icsr_cli.labelling import constraints
from icsr_cli.labelling.evidence import KnownEvidence
from icsr_cli.threads import at_once
from icsr_cli.types import NO_CLUSTER, Evidence, IntArray, Labels, Pairs


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


def evidence_of(features: Any, settings: LabelMethods, **facts: Any) -> KnownEvidence:
    """Give the evidence of features (n, d) for ``label``; ``facts`` as ``KnownEvidence`` takes them."""
    methods = (settings.distance, settings.clusterer, *settings.refiners)
    most = max(method.neighbours for method in methods)
    return KnownEvidence(features, settings.distance, most, settings.normalise, **facts)


def least_similarity(settings: LabelMethods) -> float:
    """Give the smallest similarity that can change a label, as the clusterer and the refiners say.

    Evidence that stores none below it (``least``) gives the same labels in less memory; where somebody has
    said something of pairs, the labels are mended by all similarities.
    """
    return min(method.least_similarity for method in (settings.clusterer, *settings.refiners))


def label(evidence: Evidence, settings: LabelMethods) -> Labels:
    """Cluster the images and let the refiners work on the clusters, in order.

    The labels hold the column ``cohesion`` (each image's mean similarity to the others of its cluster, before
    the refiners) and the figure ``silhouette``; and, of several cameras, ``camera_nmi``: how much the labels
    tell of the camera (0 nothing, 1 everything). Where normalisation is ``auto``, also
    ``camera_effect``, the share of the cameras' difference that is theirs, and ``normalised``, 1 or 0. Where
    somebody has said something of pairs, the clusters and what each refiner makes of them obey it
    (``constraints``). ``cohesion`` and ``silhouette`` are of all similarities: where the evidence has only
    those from ``least`` on, there are none.
    """
    rules = None if evidence.pairs is None else constraints.Rules.of(evidence.pairs, len(evidence))
    found = _cluster(evidence, settings.clusterer)
    clusters = found.clusters if rules is None else rules.mend_clusters(found.clusters, evidence.similarity)
    labels = replace(Labels.of(clusters), columns=found.columns, figures=found.figures, notes=found.notes)
    if evidence.least == 0:
        labels = replace(
            labels,
            columns={**labels.columns, "cohesion": cohesion_of(evidence.similarity, clusters)},
            figures={**labels.figures, "silhouette": silhouette_of(evidence.similarity, clusters)},
        )
    if rules is not None:
        labels = rules.note(labels, found.clusters)
    for refiner in settings.refiners:
        labels = _checked(refiner.module.refine(evidence, labels, refiner), len(evidence), refiner)
        if rules is not None:
            labels = rules.mend_labels(labels, evidence.similarity)
    if evidence.cameras is None:
        return labels
    several = len(np.unique(evidence.cameras)) > 1
    told = {"camera_nmi": _shared_information(labels.labels, evidence.cameras)} if several else {}
    return replace(labels, figures={**labels.figures, **told, **_choice(evidence)})


def _choice(evidence: Evidence) -> dict[str, float]:
    if not isinstance(evidence, KnownEvidence) or evidence.normalise != "auto":
        return {}
    return {"camera_effect": evidence.effect.share, "normalised": float(evidence.effect.mode == "full")}


def label_cameras(
    features: Any,
    settings: LabelMethods,
    clusterer: Options,
    cameras: IntArray,
    *,
    pairs: Pairs | None = None,
    device: Any = None,
    **facts: Any,
) -> IntArray:
    """Cluster each camera's images alone by ``clusterer``: int64 (n,), numbered camera by camera from 0.

    ``facts``: arrays (n,) or None, as ``KnownEvidence`` takes them, ``pairs`` and ``device`` too. Features
    are normalised, all cameras together, and compared as ``settings`` say.
    """
    most = max(settings.distance.neighbours, clusterer.neighbours)
    whole = KnownEvidence(features, settings.distance, 1, settings.normalise, cameras=cameras).features
    local = np.full(len(features), NO_CLUSTER, dtype=np.int64)

    def label_camera(camera: int) -> None:
        rows = np.flatnonzero(cameras == camera)
        own: dict[str, Any] = {name: None if fact is None else fact[rows] for name, fact in facts.items()}
        own["pairs"] = None if pairs is None else constraints.within(pairs, rows, len(features))
        own |= {"cameras": cameras[rows], "device": device}
        evidence = KnownEvidence(whole[rows], settings.distance, most, **own)
        clusters = _cluster(evidence, clusterer).clusters
        if evidence.pairs is not None:
            rules = constraints.Rules.of(evidence.pairs, len(rows))
            clusters = rules.mend_clusters(clusters, evidence.similarity)
        local[rows] = clusters

    at_once(label_camera, np.unique(cameras))
    return local


def _cluster(evidence: Evidence, clusterer: Options) -> Labels:
    """Run a clusterer, which gives int64 (n,), or labels where it has more to say."""
    found = clusterer.module.cluster(evidence, clusterer)
    return _checked(found if isinstance(found, Labels) else Labels.of(found), len(evidence), clusterer)


def _checked(found: Any, n: int, method: Options) -> Labels:
    """Hold what a method gave against what it has to give: one of the user's own may give anything.

    Raises InputError where it is something else.
    """
    wrong = next(_faults(found, n), None)
    if wrong is not None:
        raise InputError(f"The method {method.method!r} gave {wrong}.")
    checked: Labels = found
    return checked


def _faults(found: Any, n: int) -> Iterator[str]:
    """Say what keeps ``found`` from being the labels of n images."""
    if not isinstance(found, Labels):
        yield "no Labels"
        return
    for name in ("clusters", "labels"):
        values = np.asarray(getattr(found, name))
        if values.dtype != np.int64 or values.shape != (n,):
            yield f"{name} as {values.dtype} {values.shape}, not int64 ({n},)"
        elif values.min(initial=0) < NO_CLUSTER or not np.bincount(values + 1)[1:].all():
            yield f"{name} that leave numbers out: they are 0 to m - 1, and -1 for none"
    for name, column in {"states": found.states, **found.columns}.items():
        if np.shape(column) != (n,):
            yield f"{name} as {np.shape(column)}, not ({n},)"
        elif name in found.columns and (kind := np.asarray(column).dtype) not in (np.int64, np.float32):
            yield f"the column {name} as {kind}, not int64 or float32, which a label file gives back exactly"


def _shared_information(labels: IntArray, cameras: IntArray) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    kept = labels != NO_CLUSTER
    return float(normalized_mutual_info_score(cameras[kept], labels[kept])) if np.any(kept) else 0.0
