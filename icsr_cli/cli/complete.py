"""What the shell offers at the tabulator: data sets, runs, methods and their parts, networks, pages.

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


def methods_and_parts() -> list[str]:
    """Give the methods of training, and what else is chosen by name."""
    from icsr_cli import choices

    return [*methods(), *(name for room in choices.ROOMS for name in choices.available(room))]


def clusterers() -> list[str]:
    """Give what finds clusters, installed plug-ins among them."""
    from icsr_cli import choices

    return [*choices.available("clusterers")]


def refiners() -> list[str]:
    """Give what makes labels better, installed plug-ins among them, and ``none``."""
    from icsr_cli import choices

    return ["none", *choices.available("refiners")]


def beginnings(ctx: typer.Context) -> list[str]:
    """Give what a network may begin from, but for files."""
    return ["imagenet", "none", "cam", *runs(ctx)]


def worlds() -> list[str]:
    """Give the presets of synthetic data."""
    from icsr_cli.synthesis import PRESETS

    return [*PRESETS]


def networks() -> list[str]:
    """Give the architectures."""
    from icsr_cli import models

    return [*models.available()]


def pages() -> list[str]:
    """Give the pages of a report."""
    from icsr_cli.reports import pages

    return [*pages.available()]
