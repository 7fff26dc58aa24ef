"""Features -> k nearest neighbours -> sparse k-reciprocal Jaccard similarity."""

from icsr_cli.distances.jaccard import jaccard_similarity
from icsr_cli.distances.neighbours import knn

__all__ = ["jaccard_similarity", "knn"]
