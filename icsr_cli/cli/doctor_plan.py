"""The words of ``icsr doctor --plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icsr_cli.recipes.plan import Schedule


def show_plan(found: Schedule) -> None:
    """Print the estimate of a run as tables."""
    from icsr_cli.cli.console import output, print_table

    where = found.rates.name if found.devices == 1 else f"{found.devices} x {found.rates.name}"
    output().print(f"{found.images:,} training images under {found.cameras} cameras, on {where}; estimated.")
    rows = []
    for stage in found.stages:
        parts = [f"{stage.parts[part].seconds:.2f}" for part in ("extraction", "labels", "training")]
        memory = f"{sum(stage.memory.values()) / 1e9:.1f}"
        rows.append([stage.name, *parts, memory, _duration(stage.seconds), stage.binds])
    columns = ["stage", "extraction, s", "labels, s", "training, s", "memory, GB", "in all", "what binds"]
    print_table("An epoch of one network, and the stage", columns, rows)
    rows = [
        [stage.name, use, f"{count / 1e9:.2f}"]
        for stage in found.stages
        for use, count in stage.memory.items()
    ]
    print_table("Memory of each device", ["stage", "for", "GB"], rows)
    if len(found.stages) > 1:
        output().print(f"All stages: {_duration(found.seconds)}")
    if not found.fits:
        output().print(
            f"That is more than the {found.rates.memory / 1e9:.0f} GB there are: take a smaller batch, "
            "smaller images or more devices."
        )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
