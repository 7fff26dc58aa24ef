"""The one way from features to labels: what is known (``evidence``), and what is made of it (``chain``)."""

from icsr_cli.labelling.chain import LabelMethods, gather, label, label_cameras, least_similarity
from icsr_cli.labelling.evidence import KnownEvidence
from icsr_cli.labelling.overlaps import overlaps, tell_apart

__all__ = [
    "KnownEvidence",
    "LabelMethods",
    "gather",
    "label",
    "label_cameras",
    "least_similarity",
    "overlaps",
    "tell_apart",
]
