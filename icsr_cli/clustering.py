"""The clusterers as plain functions of a similarity or of neighbours, and what is measured of clusters."""

from icsr_cli.clusterers.average_linkage import average_linkage
from icsr_cli.clusterers.dbscan import dbscan
from icsr_cli.clusterers.hdbscan import hdbscan
from icsr_cli.clusterers.infomap import infomap
from icsr_cli.clusterers.measures import cohesion, silhouette

__all__ = ["average_linkage", "cohesion", "dbscan", "hdbscan", "infomap", "silhouette"]
