"""Sparse similarity or neighbours -> labels. One file per clusterer, found by its name."""

from icsr_cli.clustering.average_linkage import average_linkage
from icsr_cli.clustering.cohesion import cohesion
from icsr_cli.clustering.dbscan import dbscan
from icsr_cli.clustering.infomap import infomap
from icsr_cli.clustering.registry import Clusterer, available, clusterer
from icsr_cli.clustering.silhouette import silhouette

__all__ = [
    "Clusterer",
    "available",
    "average_linkage",
    "clusterer",
    "cohesion",
    "dbscan",
    "infomap",
    "silhouette",
]
