"""What the shell offers at the tabulator: data sets, runs, methods, networks, pages that there are."""

from __future__ import annotations

from pathlib import Path

import typer


def datasets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Give the prepared data sets."""
    from icsr_cli.datasets import index

    return _begin(index.names(Path(ctx.params.get("data_root") or "data")), incomplete)


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Give the folders of runs."""
    root = Path(ctx.params.get("runs_root") or "runs")
    return _begin(sorted(str(path.parent) for path in root.glob("*/*/*/run.json")), incomplete)


def methods(incomplete: str) -> list[str]:
    """Give the methods of training."""
    from icsr_cli import config

    return _begin([*config.methods()], incomplete)


def networks(incomplete: str) -> list[str]:
    """Give the architectures."""
    from icsr_cli import models

    return _begin(models.available(), incomplete)


def pages(incomplete: str) -> list[str]:
    """Give the pages of a report."""
    from icsr_cli.reports import pages

    return _begin(pages.available(), incomplete)


def _begin(names: list[str] | tuple[str, ...], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
