"""Features -> k nearest neighbours -> sparse k-reciprocal Jaccard similarity."""

from icsr_cli.distances.jaccard import jaccard_similarity
from icsr_cli.distances.neighbours import ApproximateNeighbours, knn

__all__ = ["ApproximateNeighbours", "jaccard_similarity", "knn"]
