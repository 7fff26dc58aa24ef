"""How the command line speaks: results on standard output, progress and messages on standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

from icsr_cli.errors import not_utf8, printable
from icsr_cli.progress import Figure, Progress, Task

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID
    from rich.table import Table
    from rich.text import Text


#: Longer words of a table, such as paths, are folded.
_WORD: Final = 26


def make_progress(quiet: bool, as_json: bool) -> Progress:
    """Give what suits standard error: live bars on a terminal, lines elsewhere, nothing if ``quiet``.

    With ``as_json`` a program reads along: bars stay on a terminal, lines do not appear.
    """
    if quiet or (as_json and not sys.stderr.isatty()):
        return QuietProgress()
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output; columns in which every value is a number are right-aligned.

    Columns for which the width has no room go on below, behind the first one. Values are shown as they are,
    brackets too; for colours give a ``rich.text.Text``.
    """
    from rich.segment import Segment
    from rich.text import Text

    cells = [[value if isinstance(value, Text) else Text(_text(value)) for value in row] for row in rows]
    if title:
        heading(title)  # a title of the table's own is folded at its width, paths too
    console, left = output(), list(range(1, len(columns)))

    def part(count: int) -> Table:
        shown = [0, *left[:count]]
        return _table([columns[i] for i in shown], [[row[i] for i in shown] for row in cells])

    def width(count: int) -> int:
        return Segment.get_line_length(next(iter(Segment.split_lines(console.render(part(count))))))

    if not _has_width():
        whole = console.options.update(max_width=10_000)
        console.width = max(console.width, console.measure(part(len(left)), options=whole).maximum)
    while True:
        count = 1 + bisect_right(range(2, len(left) + 1), console.width, key=width)
        console.print(part(count), crop=False)  # a narrow terminal breaks lines; rich would cut numbers off
        left = left[count:]
        if not left:
            return


def _table(columns: Sequence[str], cells: Sequence[Sequence[Text]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    numeric = [bool(cells) and all(_is_number(row[i].plain) for row in cells) for i in range(len(columns))]
    table = Table(
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, (column, right) in enumerate(zip(columns, numeric, strict=True)):
        # Text breaks between words, never inside one of up to _WORD letters, and numbers nowhere.
        texts = [row[number].plain for row in cells]
        words = [*column.split(), *(texts if right else (word for text in texts for word in text.split()))]
        words = [word for word in words if right or len(word) <= _WORD]
        width = max(map(len, words), default=0)
        table.add_column(
            Text(column),
            justify="right" if right else "left",
            overflow="fold",
            min_width=width,
            no_wrap=width >= max(map(len, (column, *texts))),
        )
    for row in cells:
        table.add_row(*row)
    return table


def print_records(title: str, rows: Sequence[Mapping[str, Any]], hidden: Collection[str] = ()) -> None:
    """Print records as a table: a column for each field that any has a value of; nothing without records."""
    from icsr_cli.reports.page import titled

    if rows:
        print_table(title, *titled(rows, hidden))


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print facts as a table of two columns, by the titles of their fields, without those that are None."""
    from icsr_cli.reports.page import title_of

    rows = [(title_of(name), value) for name, value in facts.items() if value is not None]
    print_table(title, ("", "value"), rows)


def print_beside(title: str, corner: str, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print records beside each other: a column for each, a row for each field; nothing without records."""
    from icsr_cli.reports.page import title_of

    keys = dict.fromkeys(key for record in records.values() for key in record)
    rows = [[title_of(key), *(record.get(key) for record in records.values())] for key in keys]
    if records:
        print_table(title, [corner, *records], rows)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output; what is not a number of JSON (nan) becomes null."""
    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(value, inf_nan_mode="null", fallback=_listed)
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    if not_utf8([text]):
        text = json.dumps(plain, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def output() -> Console:
    """Give the console of standard output. A pipe gets room for whole rows, or what ``COLUMNS`` says."""
    return _console(sys.stdout, width=None if _has_width() else 160)


def _console(file: TextIO, **options: Any) -> Console:
    """Make a console that shows text as it is: names may hold what rich takes for styles or ``:cat:``."""
    from rich.console import Console

    return Console(file=file, highlight=False, markup=False, emoji=False, **options)


def _has_width() -> bool:
    """Whether lines of standard output end somewhere: in a terminal, or where somebody said so."""
    return sys.stdout.isatty() or bool(os.environ.get("COLUMNS"))


def say(text: str, *, style: str = "", whole: bool = False) -> None:
    """Print lines on standard output as they are; ``whole`` ones are not folded, so that a path stays one."""
    output().print(printable(text), style=style, soft_wrap=whole)


def heading(text: str) -> None:
    """Print a bold line on standard output, as it is."""
    say(text, style="bold", whole=True)


def message(text: str, *, style: str = "") -> None:
    """Print a line on standard error."""
    _console(sys.stderr, soft_wrap=True).print(printable(text), style=style)


def format_figures(figures: Mapping[str, Figure]) -> str:
    """Give ``name value`` pairs on one line; floats with three significant digits or as they are read."""
    return "  ".join(f"{printable(name)} {_text(value)}" for name, value in figures.items())


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        if value != value:
            return "-"
        return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else printable(str(value))


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(",", "").rstrip("%").replace(".", "", 1).lstrip("+-").isdigit()


def _listed(value: Any) -> Any:
    """Give arrays and numbers of numpy and torch as Python's own, else the text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


class QuietProgress(Progress):
    """No bars; what the user must know is still said."""

    def warn(self, message_: str) -> None:
        """Print the warning on standard error."""
        message(f"Warning: {message_}", style="yellow")


class BarProgress(Progress):
    """Rich bars with live figures on standard error."""

    def __init__(self) -> None:
        from rich import progress as rich

        self._console = _console(sys.stderr)
        self._bars = rich.Progress(
            rich.SpinnerColumn(),
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(bar_width=24),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[unit]}"),
            rich.TimeRemainingColumn(compact=True),
            rich.TextColumn("{task.fields[figures]}", style="dim", markup=False),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )

    def task(self, title: str, total: int, unit: str = "it") -> Task:
        """Open a bar; the display lives as long as one bar is open."""
        self._bars.start()
        number = self._bars.add_task(printable(title), total=total, unit=unit, figures="")
        task = _BarTask(self._bars, number)
        if unit in ("img", "images"):
            task.show(lambda: self._speed(number))
        return task

    def _speed(self, number: TaskID) -> dict[str, Figure]:
        [speed] = [task.speed for task in self._bars.tasks if task.id == number]
        return {"img/s": int(speed)} if speed else {}

    def report(self, title: str, figures: Mapping[str, Figure]) -> None:
        """Print a line above the bars."""
        from rich.text import Text

        parts = [(printable(title), "bold")]
        for name, value in figures.items():
            parts += [(f"  {printable(name)} ", "dim"), (_text(value), "")]
        self._console.print(Text.assemble(*parts))

    def note(self, message: str) -> None:
        """Print a plain line above the bars."""
        self._console.print(printable(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print a yellow line above the bars."""
        self._console.print(f"Warning: {printable(message)}", style="yellow", soft_wrap=True)


class _BarTask(Task):
    def __init__(self, bars: RichBars, number: TaskID) -> None:
        self._bars, self._number = bars, number

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._number, count)

    def show(self, figures: Callable[[], Mapping[str, Figure]]) -> None:
        self._bars.update(self._number, figures=_Live(figures))

    def __exit__(self, *error: object) -> None:
        self._bars.remove_task(self._number)
        if not self._bars.tasks:
            self._bars.stop()


class _Live:
    """Live figures as text: asked for only when they are drawn, so that nothing waits for the device."""

    def __init__(self, figures: Callable[[], Mapping[str, Figure]]) -> None:
        self._figures = figures

    def __str__(self) -> str:
        return format_figures(self._figures())


class LineProgress(Progress):
    """tqdm, a line now and then, for a log file or a pipe."""

    def task(self, title: str, total: int, unit: str = "it") -> Task:
        """Open a bar that prints a line every half minute, none if it ends before."""
        return _LineTask(title, total, unit)

    def report(self, title: str, figures: Mapping[str, Figure]) -> None:
        """Print a line with the time of day."""
        self.note(f"{time.strftime('%H:%M:%S')} {title}  {format_figures(figures)}")

    def note(self, message: str) -> None:
        """Print a line."""
        print(printable(message), file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Print a line."""
        self.note(f"Warning: {message}")


class _LineTask(Task):
    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title, self._total, self._unit, self._done = printable(title), total, unit, 0
        self._began = self._said = time.monotonic()
        self._figures: Callable[[], Mapping[str, Figure]] = dict

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said < 30:
            return
        from tqdm import tqdm

        self._said, figures = now, format_figures(self._figures())
        state = (self._done, self._total, now - self._began, 100, self._title, True, self._unit)
        print(tqdm.format_meter(*state, postfix=figures), file=sys.stderr, flush=True)

    def show(self, figures: Callable[[], Mapping[str, Figure]]) -> None:
        self._figures = figures
