"""The labels of a table against the truth, where somebody knows it."""

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
