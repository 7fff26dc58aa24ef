"""Features -> k nearest neighbours -> sparse k-reciprocal Jaccard similarity."""

from icsr_cli.distances.camera_jaccard import camera_jaccard_similarity
from icsr_cli.distances.jaccard import jaccard_similarity
from icsr_cli.distances.neighbours import ApproximateNeighbours, knn
from icsr_cli.distances.normalisation import CameraStatistics, normalise_cameras

__all__ = [
    "ApproximateNeighbours",
    "CameraStatistics",
    "camera_jaccard_similarity",
    "jaccard_similarity",
    "knn",
    "normalise_cameras",
]
