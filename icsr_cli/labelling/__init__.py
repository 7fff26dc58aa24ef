"""The one way from features to labels: what is known (``evidence``), and what is made of it (``chain``)."""

from icsr_cli.labelling.chain import LabelMethods, evidence_of, label, label_cameras, least_similarity
from icsr_cli.labelling.evidence import KnownEvidence
from icsr_cli.labelling.overlapping_tracks import overlapping_tracks, tell_apart

__all__ = [
    "KnownEvidence",
    "LabelMethods",
    "evidence_of",
    "label",
    "label_cameras",
    "least_similarity",
    "overlapping_tracks",
    "tell_apart",
]
