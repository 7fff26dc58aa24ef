"""Small charts as inline SVG. Colours are classes that the page's style sheet sets for light and dark.

Lines differ in colour and in dashes, since not everybody tells colours apart. No script is needed: the
value of a point is its ``title``, which a browser shows under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

#: Line colours of the style sheet; further lines begin anew, with the next pattern of dashes.
COLOURS: Final = 8
_DASHES: Final = ("", "6 3", "2 3", "9 3 2 3")
_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 332, 10, 164


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
        return _figure(title, Markup('<p class="none">No value to draw.</p>'))
    xs, ys = zip(*points, strict=True)
    scale = _Scale(ticks(min(xs), max(xs), 6, whole=True), _LEFT + 6, _RIGHT - 6, (min(xs), max(xs)))
    low = min(0.0, *ys) if from_zero else min(ys)
    counts = all(y == int(y) for y in ys) and not percent
    rise = _Scale(ticks(low, max(ys), 4, whole=counts), _BOTTOM, _TOP)
    drawn = (_line(line, number, scale, rise, percent, x_label) for number, line in enumerate(lines))
    parts = [_grid(scale, rise, _formatter(rise.ticks, percent), x_label), *drawn]
    legend = [(line.name, f"c{i % COLOURS}", _dash(i)) for i, line in enumerate(lines)]
    return _figure(title, _svg(title, parts), _legend(legend) if len(lines) > 1 else Markup(""))


def bar_chart(title: str, labels: Sequence[str], series: Sequence[tuple[str, Sequence[int]]]) -> Markup:
    """Draw counts: one group of bars per label, one bar in it per series (name, counts)."""
    top = max((value for _, values in series for value in values), default=0)
    if top == 0:
        return _figure(title, Markup('<p class="none">No value to draw.</p>'))
    rise = _Scale(ticks(0, top, 4, whole=True), _BOTTOM, _TOP)
    show = _formatter(rise.ticks, percent=False)
    slot = (_RIGHT - _LEFT) / len(labels)
    width = slot * 0.8 / len(series)
    parts = [_y_grid(rise, show)]
    for number, (name, values) in enumerate(series):
        for place, value in enumerate(values):
            x, y = _LEFT + slot * (place + 0.1) + width * number, rise(value)
            bar = Markup(
                '<rect class="b{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>{}: {} {}</title></rect>"
            )
            size = max(width - 1, 0.5), _BOTTOM - y
            parts.append(bar.format(number, x, y, *size, labels[place], f"{value:,}", name))
    # As many labels as there is room for, at some six units a letter.
    every = math.ceil(len(labels) * (max(map(len, labels)) + 2) * 6 / (_RIGHT - _LEFT))
    parts += [
        Markup('<text x="{:.1f}" y="178" class="mid">{}</text>').format(_LEFT + slot * (place + 0.5), label)
        for place, label in enumerate(labels)
        if place % every == 0
    ]
    legend = [(name, f"b{number}", "") for number, (name, _) in enumerate(series)]
    return _figure(title, _svg(title, parts), _legend(legend) if len(series) > 1 else Markup(""))


def scatter(title: str, groups: Sequence[PointGroup], *, legend: bool) -> Markup:
    """Draw points in a square; both axes have one scale, and no numbers, for distances alone matter."""
    everything = np.concatenate([group.points for group in groups])
    low, high = everything.min(axis=0), everything.max(axis=0)
    span = float(max((high - low).max(), 1e-9))
    shift = (low + high) / 2 - span / 2
    radius = 2.6 if len(everything) <= 1000 else 2.0
    parts, names = [], []
    for number, group in enumerate(groups):
        places = 10 + (group.points - shift) / span * 320
        # A dot is a line of no length with round ends: a third of the text that circles need.
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places.tolist())
        style = Markup(' style="stroke:{}"').format(group.colour) if group.colour else Markup("")
        parts.append(
            Markup('<path class="dots c{}" stroke-width="{}"{} d="{}"><title>{}</title></path>').format(
                number % COLOURS, radius * 2, style, path, group.name
            )
        )
        names.append((group.name, f"c{number % COLOURS}", ""))
    drawing = Markup('<svg viewBox="0 0 340 340" role="img" aria-label="{}">{}</svg>').format(
        title, Markup("").join(parts)
    )
    return _figure(title, drawing, _legend(names, dots=True) if legend else Markup(""))


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


def _formatter(marks: Sequence[float], percent: bool) -> Callable[[float], str]:
    """Give as many decimals as neighbouring ticks need to differ."""
    step = (marks[1] - marks[0]) * (100 if percent else 1) if len(marks) > 1 else 1.0
    decimals = next((places for places in range(5) if abs(round(step, places) - step) < 1e-9), 4)
    if percent:
        return lambda value: f"{100 * value:.{decimals}f}%"
    return lambda value: f"{value:,.{decimals}f}"


def _dash(number: int) -> str:
    # Neighbouring lines differ in dashes as well as in colour, also within the first round of colours.
    return _DASHES[(number + number // COLOURS) % len(_DASHES)]


def _grid(scale: _Scale, rise: _Scale, show: Callable[[float], str], x_label: str) -> Markup:
    marks = [
        Markup('<text x="{:.1f}" y="178" class="mid">{}</text>').format(scale(mark), f"{mark:g}")
        for mark in scale.ticks
    ]
    name = Markup('<text x="{}" y="189" class="end">{}</text>').format(_RIGHT, x_label)
    return Markup("").join([_y_grid(rise, show), *marks, name])


def _y_grid(rise: _Scale, show: Callable[[float], str]) -> Markup:
    return Markup("").join(
        Markup('<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" class="end">{}</text>').format(
            _LEFT, rise(mark), _RIGHT, _LEFT - 5, rise(mark) + 3.5, show(mark)
        )
        for mark in rise.ticks
    )


def _line(line: Line, number: int, scale: _Scale, rise: _Scale, percent: bool, x_label: str) -> Markup:
    path, dots, gap = [], [], True
    radius = 2.2 if len(line.x) <= 30 else 1.2
    for x, y in zip(line.x, line.y, strict=True):
        if y is None or not math.isfinite(y):
            gap = True
            continue
        place = (scale(float(x)), rise(float(y)))
        path.append(f"{'M' if gap else 'L'}{place[0]:.1f} {place[1]:.1f}")
        gap = False
        dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}, {} {}: {}</title></circle>')
        said = f"{100 * y:.1f}%" if percent else f"{y:,.4g}"
        dots.append(dot.format(*place, radius, line.name, x_label, f"{x:g}", said))
    return Markup('<g class="line c{}"><path stroke-dasharray="{}" d="{}"/>{}</g>').format(
        number % COLOURS, _dash(number), "".join(path), Markup("").join(dots)
    )


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT + 4, title, Markup("").join(parts)
    )


def _legend(entries: Sequence[tuple[str, str, str]], *, dots: bool = False) -> Markup:
    shape = (
        Markup('<path class="dots {}" stroke-width="8" d="M11 5h0"/>')
        if dots
        else Markup('<path class="key {}" stroke-dasharray="{}" d="M0 5H22"/>')
    )
    return Markup('<ul class="legend">{}</ul>').format(
        Markup("").join(
            Markup('<li><svg viewBox="0 0 22 10" aria-hidden="true">{}</svg>{}</li>').format(
                shape.format(kind, dash), name
            )
            for name, kind, dash in entries
        )
    )


def _figure(title: str, drawing: Markup, legend: Markup = Markup("")) -> Markup:  # noqa: B008 - immutable
    return Markup('<figure class="chart"><figcaption>{}</figcaption>{}{}</figure>').format(
        escape(title), drawing, legend
    )
