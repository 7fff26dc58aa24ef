"""Labels against the truth, as a page shows it, for tables of the cam stage as well."""

from dataclasses import replace

import numpy as np

from icsr_cli.metrics import LabelQuality
from icsr_cli.reports.page import Table, table_of
from icsr_cli.runs import LabelTable
from icsr_cli.runs.quality import local_codes, quality
from icsr_cli.types import NO_CLUSTER


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


def judged(labels: LabelTable | None) -> dict[str, LabelQuality]:
    """Judge global, local and refined labels, as far as there are any and the truth is known."""
    if labels is None:
        return {}
    found = {name: part for name, part in quality(labels).items() if part is not None}
    return {"local": found["local"]} if is_local(labels) and "local" in found else found


def quality_table(labels: LabelTable | None) -> Table | None:
    """Hold the labels against the truth; None where it is not known."""
    rows = [{"labels": name, **part.as_dict()} for name, part in judged(labels).items()]
    return table_of(rows, hidden=("n_images",)) if rows else None
