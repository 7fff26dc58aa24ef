"""Labels against the truth, as a page shows it, for tables of the cam stage as well."""

from icsr_cli.metrics import LabelQuality
from icsr_cli.reports.page import Table, table_of
from icsr_cli.runs import LabelTable
from icsr_cli.runs.quality import is_local, quality


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
