"""Runs side by side as one page: what differs, what came of it, curves together."""

from collections.abc import Sequence
from statistics import mean

from icsr_cli.errors import counted
from icsr_cli.recipes.comparison import Comparison, Row, compare
from icsr_cli.reports.charts import Line
from icsr_cli.reports.epochs import chart, value_of
from icsr_cli.reports.page import render, table
from icsr_cli.reports.view import View

_CURVES = (
    ("Loss", ("loss",), False),
    ("Clusters", ("clusters",), False),
    ("NMI of what is trained on", ("quality", "refined", "nmi"), False),
    ("NMI of the local labels", ("nmi",), False),
    ("Pairwise F of what is trained on", ("quality", "refined", "pairwise_f"), False),
    ("mAP on the test set", ("test_mAP",), True),
)


def page(view: View) -> str:
    """Hold the runs of a view side by side."""
    return compare_page(compare(view.runs))


def compare_page(found: Comparison) -> str:
    """Give the whole page as HTML; curves of several seeds are their mean."""
    settings = found.set_by_row()
    return render(
        "compare.html",
        title=f"{counted(sum(len(row.runs) for row in found.rows), 'run')} side by side",
        facts={row.name: _runs(row) for row in found.rows},
        settings=table(("setting", *found.names), settings) if settings else None,
        figures=table(("", *found.names), found.came_to_by_row()),
        curves=[
            drawn
            for name, keys, shares in _CURVES
            for drawn in chart(name, [_curve(row, keys) for row in found.rows], percent=shares)
        ],
    )


def _runs(row: Row) -> str:
    seeds = ", ".join(map(str, row.seeds))
    folders = ", ".join(str(run.path) for run in row.runs)
    return f"{folders}; seed{'s' if len(row.seeds) > 1 else ''} {seeds}"


def _curve(row: Row, keys: Sequence[str]) -> Line:
    """Give the mean over the runs, and over the networks of a cam run, of each epoch."""
    values: dict[int, list[float]] = {}
    for lines in row.epochs:
        for line in lines:
            value = value_of(line, keys)
            if value is not None:
                values.setdefault(int(line["epoch"]), []).append(value)
    return Line(row.name, list(values), [mean(found) for found in values.values()])
