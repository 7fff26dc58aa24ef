"""What every page is made with: the templates, the style sheet, and how numbers are written."""

import base64
import hashlib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from icsr_cli.errors import counted

_FIGURE: Final = r"-?[\d,]+(\.\d+)?%?"
#: A figure, or a mean with its deviation, and of how many runs it is.
_NUMBER: Final = re.compile(rf"-|{_FIGURE}( ± {_FIGURE})?( \(of \d+\))?")
#: Fields whose titles are other words than their names.
_TITLES: Final = {
    "local_clusters_per_camera": "local per camera",
    "part": "network",
    "test_mAP": "mAP on the test set",
}


@dataclass(frozen=True)
class Table:
    """Columns and rows as text; ``numeric`` columns are set to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Write the values of ``rows`` as text; a column of numbers alone is a numeric one."""
    texts = tuple(tuple(write(value) for value in row) for row in rows)
    numeric = tuple(all(_NUMBER.fullmatch(row[place]) for row in texts) for place in range(len(columns)))
    return Table(tuple(columns), texts, numeric)


def table_of(rows: Sequence[Mapping[str, Any]], hidden: Collection[str] = ()) -> Table:
    """Make a table of records, as ``titled`` gives them."""
    return table(*titled(rows, hidden))


def titled(
    rows: Sequence[Mapping[str, Any]], hidden: Collection[str] = ()
) -> tuple[list[str], list[list[Any]]]:
    """Give titles and values of records: a column for each key that any of them has a value for."""
    keys = dict.fromkeys(key for row in rows for key in row if key not in hidden)
    shown = [key for key in keys if any(row.get(key) is not None for row in rows)]
    return [title_of(key) for key in shown], [[row.get(key) for key in shown] for row in rows]


def title_of(key: str) -> str:
    """Name a field as a reader knows it; JSON keeps the field's own name."""
    if key in _TITLES:
        return _TITLES[key]
    words = key.replace("bcubed", "BCubed").replace("nmi", "NMI").removeprefix("n_").replace("_", " ")
    return re.sub(r" f\b", " F", words)


def tile(number: int, one: str) -> tuple[str, str]:
    """Give the tile of a number of things: what they are called, and the number."""
    value, name = counted(number, one).split()
    return name, value


def write(value: object) -> str:
    """Write a value as it is read in a table: 1,234; 0.912; a dash for nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def percent(share: float) -> str:
    """Write a share as per cent with one decimal."""
    return f"{100 * share:.1f}%" if math.isfinite(share) else "-"


def duration(seconds: float) -> str:
    """Write seconds as a person says them: 8.4 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def render(template: str, **values: Any) -> str:
    """Fill a template; every text in ``values`` is escaped, and a name that is missing is an error."""
    return _environment().get_template(template).render(**values)


def script(name: str) -> dict[str, str]:
    """Give a script of ours, and its hash: a page allows it alone, whatever else gets into it is not run."""
    text = resources.files("icsr_cli.reports").joinpath("templates", name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"script": Markup(text), "script_hash": f"sha256-{digest}"}  # noqa: S704 - our own file


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("icsr_cli.reports", folder) for folder in ("pages", "templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sheet = resources.files("icsr_cli.reports").joinpath("templates", "style.css")
    environment.globals["style"] = Markup(sheet.read_text(encoding="utf-8"))  # noqa: S704 - our own file
    environment.globals.update(script("page.js"))
    environment.globals.update(notes=(), tiles=(), wide=False, sections=(), filter=False)
    environment.filters.update(percent=percent, write=write, duration=duration)
    environment.globals["parts"] = environment.get_template("parts.html").module
    return environment
