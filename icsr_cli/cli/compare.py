"""``icsr compare``: runs side by side, on the terminal, as a table for a paper, or as a page."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from icsr_cli.cli import options
from icsr_cli.cli.console import message, print_json, print_table
from icsr_cli.errors import RunError, UsageError

if TYPE_CHECKING:
    from icsr_cli.recipes.comparison import Comparison
    from icsr_cli.runs import RunFolder


def compare(
    runs: Annotated[
        list[Path] | None, options.a_run(metavar="[RUN]...", help="Runs; all like the newest if left out.")
    ] = None,
    style: Annotated[
        Literal["table", "md", "latex", "csv", "json"],
        typer.Option("--format", "-f", help="What is printed."),
    ] = "table",
    html: Annotated[Path | None, typer.Option("--html", help="Write one page, with curves.")] = None,
    runs_root: options.RunsRoot = Path("runs"),
    as_json: options.Json = False,
) -> None:
    """Hold runs side by side: settings that differ, retrieval, label quality, time.

    Runs that differ in the seed alone become one row, with mean and standard deviation. Retrieval is what
    icsr eval kept in each run.
    """
    from icsr_cli.recipes.comparison import compare as compared

    if as_json and style not in ("table", "json"):
        raise UsageError(f"--json and --format {style} both say what is printed; give one of them.")
    if html is not None:
        options.check_out(html, "--html", *options.PAGES)
    found = compared(_open(runs, runs_root))
    if html is not None:
        from icsr_cli.files import write_text
        from icsr_cli.reports.pages.compare import compare_page

        write_text(html, compare_page(found))
        message(f"Written to {html}")
    _FORMATS["json" if as_json else style](found)


def _open(paths: list[Path] | None, root: Path) -> list[RunFolder]:
    from icsr_cli.runs import find_runs, newest, open_run

    if paths:
        return [open_run(path) for path in paths]
    last = newest(root, file="metrics.jsonl")
    alike = find_runs(root, last.dataset, last.stage)
    found = [run for run in alike if (run.path / "metrics.jsonl").is_file() and _is_sound(run)]
    if not found:
        raise RunError(f"Every {last.stage} run of {last.dataset} is damaged.")
    if len(found) == 1:
        raise RunError(
            f"{found[0].path} is the only {last.stage} run of {last.dataset}: name others to compare."
        )
    return found


def _is_sound(run: RunFolder) -> bool:
    """Whether all that is compared can be read; a damaged run that nobody named is left out, with a word."""
    from icsr_cli.runs.evaluation import read_evaluations

    try:
        run.settings(), run.metrics(), read_evaluations(run.path)
    except RunError as error:
        message(f"Warning: {error} The run is left out.", style="yellow")
        return False
    return True


def _show(found: Comparison) -> None:
    """Print it with a column for each run: names are long, and there are more figures than runs."""
    if found.differing:
        print_table("Settings that differ", ["setting", *found.names], found.set_by_row())
    seeds = [["seeds", *(", ".join(map(str, row.seeds)) for row in found.rows)]]
    print_table("What came of it", ["", *found.names], [*seeds, *found.came_to_by_row()])
    if not any(name.startswith("mAP") for name in found.figures):
        typer.echo("No retrieval: icsr eval RUN measures a run and keeps the figures in it.")


def _cells(found: Comparison) -> tuple[tuple[str, ...], ...]:
    """Give the heading and a line for each row, as a paper has them."""
    columns = [["run", *found.names], ["seeds", *(str(len(row.seeds)) for row in found.rows)]]
    return tuple(zip(*columns, *found.set_by_row(), *found.came_to_by_row(), strict=True))


def _markdown(found: Comparison) -> None:
    columns, *lines = _cells(found)
    rule = ["---"] * (2 + len(found.differing)) + ["---:"] * len(found.figures)
    for line in (columns, rule, *lines):
        typer.echo("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |")


def _latex(found: Comparison) -> None:
    heading, *rows = (" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in _cells(found))
    typer.echo("% needs \\usepackage{booktabs}")
    kinds = "l" * (2 + len(found.differing)) + "r" * len(found.figures)
    typer.echo(rf"\begin{{tabular}}{{{kinds}}}")
    for line in (r"\toprule", heading, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"):
        typer.echo(line)


#: How LaTeX writes what it would read as its own; a row that begins with [ or * would be the last one's.
_LATEX: Final = str.maketrans(
    {sign: rf"\{sign}" for sign in "&%#_{}$"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    | {"±": r"$\pm$", "[": "{[}", "*": "{*}"}
)


def _csv(found: Comparison) -> None:
    from icsr_cli.files import csv_bytes
    from icsr_cli.recipes.comparison import spread

    heads = (head for name in found.figures for head in (name, f"{name} deviation", f"{name} seeds"))
    lines: list[list[object]] = [["run", "seeds", *found.differing, *heads]]
    for row in found.rows:
        known = [row.figures.get(name, ()) for name in found.figures]
        values = ((*(spread(own) if own else (None, None)), len(own)) for own in known)
        said = (row.settings.get(key, "") for key in found.differing)
        lines.append([row.name, len(row.seeds), *said, *chain.from_iterable(values)])
    typer.echo(csv_bytes(lines), nl=False)


def _json(found: Comparison) -> None:
    from icsr_cli.recipes.comparison import spread

    rows = []
    for row in found.rows:
        figures = {}
        for name, values in row.figures.items():
            middle, deviation = spread(values)
            figures[name] = {"mean": middle, "deviation": deviation, "values": list(values)}
        rows.append(
            {
                "name": row.name,
                "runs": [str(run.path) for run in row.runs],
                "seeds": list(row.seeds),
                "settings": {key: row.settings.get(key) for key in found.differing},
                "figures": figures,
            }
        )
    print_json({"rows": rows})


_FORMATS = {"table": _show, "md": _markdown, "latex": _latex, "csv": _csv, "json": _json}
