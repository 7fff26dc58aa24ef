"""The cluster memory as a plain class of centroids and targets."""

from icsr_cli.memories.clusters import ClusterMemory, centroids_of

__all__ = ["ClusterMemory", "centroids_of"]
