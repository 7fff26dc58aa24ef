"""The labels of a table against the truth, where somebody knows it, and those of the cam stage."""

from dataclasses import replace

import numpy as np

from icsr_cli.metrics import LabelQuality, judge
from icsr_cli.runs.labels import LabelTable
from icsr_cli.types import NO_CLUSTER, UNKNOWN_IDENTITY, IntArray, number_rows


def quality(table: LabelTable) -> dict[str, LabelQuality | None]:
    """Judge the ``global``, ``local`` and ``refined`` labels; None where there is nothing to judge.

    Local labels are judged within each camera: images of one person under two cameras are two truths, as
    no local cluster could hold both.
    """
    identities = table.identities
    within_camera = np.where(
        identities == UNKNOWN_IDENTITY, UNKNOWN_IDENTITY, number_rows(table.cameras, identities)
    )
    return {
        "global": judge(table.clusters, identities),
        "local": judge(local_codes(table), within_camera),
        "refined": judge(table.labels, identities),
    }


def local_codes(table: LabelTable) -> IntArray:
    """Give each image one number for its camera and local cluster together, int64 (n,), -1 for none."""
    codes = number_rows(table.cameras, table.local_clusters)
    return np.where(table.local_clusters == NO_CLUSTER, NO_CLUSTER, codes)


def is_local(labels: LabelTable) -> bool:
    """Say whether a table is one of the cam stage: its clusters are the cameras' local clusters.

    They may be numbered camera by camera, or, as ``icsr train cam`` writes them, differently everywhere.
    """
    codes = local_codes(labels)
    if (codes == NO_CLUSTER).all():
        return False
    pairs = np.unique(np.stack([codes, labels.clusters]), axis=1)
    one_to_one = len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    return one_to_one or bool((labels.clusters == labels.local_clusters).all())


def one_number_per_cluster(labels: LabelTable) -> LabelTable:
    """Give each cluster of the cam stage a number of its own: 5 under two cameras is two clusters.

    Cameras come in order, so that numbers which are different already stay as they are. Other tables are
    given back as they came.
    """
    if not is_local(labels):
        return labels
    codes = local_codes(labels)
    codes[codes != NO_CLUSTER] -= codes[codes != NO_CLUSTER].min()
    return replace(labels, clusters=codes, local_clusters=codes, labels=codes)
