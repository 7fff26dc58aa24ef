"""Small charts as inline SVG. Colours are classes that the page's style sheet sets for light and dark.

Lines differ in colour and in dashes, since not everybody tells colours apart. No script is needed: the
value of a point is its ``title``, which a browser shows under the pointer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from icsr_cli.reports.page import render

#: Line colours of the style sheet; further lines begin anew, with the next pattern of dashes.
COLOURS: Final = 8
_DASHES: Final = ("", "6 3", "2 3", "9 3 2 3")
#: The template has these, too.
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 332, 10, 164
#: What the template may be given.
_NOTHING: Final = dict.fromkeys(
    ("grid", "marks", "x_label", "lines", "bars", "clouds", "width", "legend"), ()
)


@dataclass(frozen=True)
class Line:
    """One line of a chart; a value that is None or not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class PointGroup:
    """Points of one colour: float (m, 2). ``colour`` is a CSS colour, or None for the next of the sheet."""

    name: str
    points: npt.NDArray[np.floating]
    colour: str | None = None


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    percent: bool = False,
    from_zero: bool = False,
    x_label: str = "epoch",
) -> Markup:
    """Draw lines over whole numbers, epochs for instance.

    ``percent`` says that values are shares, 0 to 1; ``from_zero`` that the axis of values starts there.
    """
    points = [
        (float(x), float(y))
        for line in lines
        for x, y in zip(line.x, line.y, strict=True)
        if y is not None and math.isfinite(y)
    ]
    if not points:
        return _chart(title)
    xs, ys = zip(*points, strict=True)
    scale = _Scale(ticks(min(xs), max(xs), 6, whole=True), _LEFT + 6, _RIGHT - 6, (min(xs), max(xs)))
    low = min(0.0, *ys) if from_zero else min(ys)
    counts = all(y == int(y) for y in ys) and not percent
    rise = _Scale(ticks(low, max(ys), 4, whole=counts), _BOTTOM, _TOP)
    return _chart(
        title,
        grid=_grid(rise, percent),
        marks=[(scale(mark), f"{mark:g}") for mark in scale.ticks],
        x_label=x_label,
        lines=[_line(line, scale, rise, percent, x_label) for line in lines],
        legend=[(line.name, f"c{i % COLOURS}", _dash(i)) for i, line in enumerate(lines)],
    )


def bar_chart(title: str, labels: Sequence[str], series: Sequence[tuple[str, Sequence[int]]]) -> Markup:
    """Draw counts: one group of bars per label, one bar in it per series (name, counts)."""
    top = max((value for _, values in series for value in values), default=0)
    if top == 0:
        return _chart(title)
    rise = _Scale(ticks(0, top, 4, whole=True), _BOTTOM, _TOP)
    slot = (_RIGHT - _LEFT) / len(labels)
    width = slot * 0.8 / len(series)
    # As many labels as there is room for, at some six units a letter.
    every = math.ceil(len(labels) * (max(map(len, labels)) + 2) * 6 / (_RIGHT - _LEFT))
    return _chart(
        title,
        grid=_grid(rise, percent=False),
        bars=[
            (number, _LEFT + slot * (place + 0.1) + width * number, rise(value), f"{label}: {value:,} {name}")
            for number, (name, values) in enumerate(series)
            for place, (label, value) in enumerate(zip(labels, values, strict=True))
        ],
        width=max(width - 1, 0.5),
        marks=[(_LEFT + slot * (place + 0.5), labels[place]) for place in range(len(labels) - 1, -1, -every)],
        legend=[(name, f"b{number}", "") for number, (name, _) in enumerate(series)],
    )


def scatter(title: str, groups: Sequence[PointGroup], *, legend: bool) -> Markup:
    """Draw points in a square; both axes have one scale, and no numbers, for distances alone matter."""
    everything = np.concatenate([group.points for group in groups])
    low, high = everything.min(axis=0), everything.max(axis=0)
    span = float(max((high - low).max(), 1e-9))
    shift = (low + high) / 2 - span / 2
    clouds = []
    for number, group in enumerate(groups):
        places = 10 + (group.points - shift) / span * 320
        # A dot is a line of no length with round ends: a third of the text that circles need.
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places.tolist())
        clouds.append((group.name, f"c{number % COLOURS}", group.colour, path))
    names = [(name, kind, "") for name, kind, *_ in clouds] if legend else []
    return _chart(title, clouds=clouds, width=5.2 if len(everything) <= 1000 else 4.0, legend=names)


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """Give about ``count`` round numbers that enclose ``low`` to ``high``; ``whole`` ones alone if asked."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-100):
        margin = 1.0 if whole else max(abs(low) * 0.1, 1e-3)
        low, high = low - margin * (low > 0), high + margin
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Twelve digits: 0.1 * 3 is meant to be 0.3.
    return [float(f"{step * place:.12g}") for place in range(first, max(last, first + 1) + 1)]


class _Scale:
    """From a value to a place in the drawing; ``limits`` narrower than the ticks drop those outside."""

    def __init__(
        self, marks: list[float], start: float, end: float, limits: tuple[float, float] | None = None
    ) -> None:
        low, high = limits or (marks[0], marks[-1])
        self.ticks = [mark for mark in marks if low <= mark <= high]
        self._low, self._span = low, high - low
        self._start, self._length = start, end - start

    def __call__(self, value: float) -> float:
        share = (value - self._low) / self._span if self._span else 0.5
        return self._start + share * self._length


def _dash(number: int) -> str:
    # Neighbouring lines differ in dashes as well as in colour, also within the first round of colours.
    return _DASHES[(number + number // COLOURS) % len(_DASHES)]


def _grid(rise: _Scale, percent: bool) -> list[tuple[float, str]]:
    """Give the ticks their texts, of as many decimals as neighbouring ones need to differ."""
    marks, scale, sign = rise.ticks, 100 if percent else 1, "%" if percent else ""
    step = (marks[1] - marks[0]) * scale if len(marks) > 1 else 1.0
    decimals = next((places for places in range(5) if abs(round(step, places) - step) < 1e-9), 4)
    return [(rise(mark), f"{scale * mark:,.{decimals}f}{sign}") for mark in marks]


def _line(line: Line, scale: _Scale, rise: _Scale, percent: bool, x_label: str) -> dict[str, Any]:
    path, dots, gap = [], [], True
    for x, y in zip(line.x, line.y, strict=True):
        if y is None or not math.isfinite(y):
            gap = True
            continue
        place = (scale(float(x)), rise(float(y)))
        path.append(f"{'M' if gap else 'L'}{place[0]:.1f} {place[1]:.1f}")
        gap = False
        said = f"{100 * y:.1f}%" if percent else f"{y:,.4g}"
        dots.append((*place, f"{line.name}, {x_label} {x:g}: {said}"))
    return {"path": "".join(path), "dots": dots, "radius": 2.2 if len(line.x) <= 30 else 1.2}


def _chart(title: str, **drawn: Any) -> Markup:
    """Fill the template with places and texts; without any the chart says that there is no value."""
    return Markup(render("chart.html", title=title, **(_NOTHING | drawn)))  # noqa: S704 - escaped there
