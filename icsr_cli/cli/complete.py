"""What the shell offers at the tabulator: data sets, runs, methods, networks, pages that there are.

Typer keeps those that begin with what is typed.
"""

from pathlib import Path

import typer


def datasets(ctx: typer.Context) -> list[str]:
    """Give the prepared data sets."""
    from icsr_cli.datasets import index

    return [*index.names(Path(ctx.params.get("data_root") or "data"))]


def runs(ctx: typer.Context) -> list[str]:
    """Give the folders of runs."""
    root = Path(ctx.params.get("runs_root") or "runs")
    return sorted(str(path.parent) for path in root.glob("*/*/*/run.json"))


def methods() -> list[str]:
    """Give the methods of training."""
    from icsr_cli import config

    return [*config.methods()]


def networks() -> list[str]:
    """Give the architectures."""
    from icsr_cli import models

    return [*models.available()]


def pages() -> list[str]:
    """Give the pages of a report."""
    from icsr_cli.reports import pages

    return [*pages.available()]
