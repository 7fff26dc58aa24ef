"""Features -> k nearest neighbours -> sparse k-reciprocal Jaccard similarity."""

from icsr_cli.distances.jaccard import jaccard_similarity
from icsr_cli.distances.neighbours import ApproximateNeighbours, knn
from icsr_cli.distances.normalisation import CameraStatistics, normalise_cameras

__all__ = ["ApproximateNeighbours", "CameraStatistics", "jaccard_similarity", "knn", "normalise_cameras"]
