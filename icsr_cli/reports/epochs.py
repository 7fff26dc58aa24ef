"""The epochs of a run, as curves and as a table: what ``metrics.jsonl`` holds, for a page.

The figures of a line are the methods' own: every number it has is drawn under its own name, of each network
of a cam run, where there are several; of the quality, the measures of ``QUALITY``. The epoch whose labels a
camera keeps is no curve.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from markupsafe import Markup

from icsr_cli.reports.charts import Line, line_chart
from icsr_cli.reports.page import Table, percent, table, table_of, title_of

#: One line of ``metrics.jsonl``.
Epoch: TypeAlias = Mapping[str, Any]

#: The labels that are judged; what they are is said on the page.
LABELS: Final = ("global", "local", "refined")
QUALITY: Final = {
    "nmi": "Label quality: NMI",
    "pairwise_f": "Label quality: pairwise F",
    "bcubed_f": "Label quality: BCubed F",
}
#: What is no figure of the epoch; quality and seconds hold more than one number, and are drawn apart.
_NO_FIGURES: Final = ("part", "epoch", "cameras", "quality", "seconds")
#: What is larger, or no number, is not drawn.
_LARGEST: Final = 1e30


def curves(epochs: Sequence[Epoch], stage: str, names: Sequence[str] = ()) -> list[Markup]:
    """Draw every curve that the epochs of a run of ``stage`` (``cam`` or ``global``) give.

    ``names``: of the cameras, where they are known.
    """
    return _cam_curves(epochs, names) if stage == "cam" else _global_curves(epochs)


def epoch_table(epochs: Sequence[Epoch], names: Sequence[str] = ()) -> Table:
    """Give the same numbers as a table."""
    rows, keys = [], _figures(epochs)
    for epoch in epochs:
        head = {"part": network_name(epoch["part"], names) if "part" in epoch else None}
        judged = {
            f"{measure} {labels}": found[measure]
            for labels, found in epoch.get("quality", {}).items()
            for measure in ("nmi", "pairwise_f")
        }
        rows.append({**head, "epoch": epoch["epoch"], **{key: epoch.get(key) for key in keys}, **judged})
    return table_of(rows)


def seconds_table(epochs: Sequence[Epoch]) -> Table | None:
    """Sum the seconds of each part over the epochs; None where they were not taken."""
    timed = [epoch["seconds"] for epoch in epochs if epoch.get("seconds")]
    if not timed:
        return None
    totals = {part: sum(float(seconds.get(part, 0.0)) for seconds in timed) for part in timed[0]}
    everything = sum(totals.values())
    rows = [
        [part, f"{total:,.1f}", f"{total / len(timed):,.2f}", percent(total / (everything or 1e-9))]
        for part, total in [*totals.items(), ("together", everything)]
    ]
    return table(("part", "seconds", "seconds per epoch", "share"), rows)


def network_name(part: str, names: Sequence[str] = ()) -> str:
    """Name the network of a line of a cam run: ``shared``, or ``camera 3``, or by the camera's own name."""
    number = part.removeprefix("camera_")
    named = number.isdecimal() and int(number) < len(names)
    return f"camera {names[int(number)]}" if named else part.replace("_", " ")


def _figures(epochs: Sequence[Epoch]) -> list[str]:
    return [key for key in dict.fromkeys(key for epoch in epochs for key in epoch) if key not in _NO_FIGURES]


def _global_curves(epochs: Sequence[Epoch]) -> list[Markup]:
    charts = [(title_of(key), [_line(title_of(key), epochs, key)]) for key in _figures(epochs)]
    charts += [
        (title, [_line(name, epochs, "quality", name, measure) for name in LABELS])
        for measure, title in QUALITY.items()
    ]
    parts = [_line(part, epochs, "seconds", part) for part in _timed(epochs)]
    return [
        *(drawn for title, lines in charts for drawn in chart(title, lines, percent="mAP" in title)),
        *chart("Seconds per part", parts, from_zero=True),
    ]


def _cam_curves(epochs: Sequence[Epoch], names: Sequence[str]) -> list[Markup]:
    """Draw one line per network for its figures, and one per camera for its labels."""
    networks: dict[str, list[Epoch]] = {}
    cameras: dict[int, list[Epoch]] = {}
    for epoch in epochs:
        networks.setdefault(epoch.get("part", ""), []).append(epoch)
        for camera in epoch.get("cameras", ()):
            cameras.setdefault(int(camera), []).append(epoch)

    def per_network(title: str, *keys: str, from_zero: bool = False) -> list[Markup]:
        lines = [_line(network_name(part, names), own, *keys) for part, own in networks.items()]
        return chart(title, lines, from_zero=from_zero)

    def per_camera(title: str, *keys: str) -> list[Markup]:
        lines = [
            _line(network_name(f"camera_{camera}", names), cameras[camera], "cameras", str(camera), *keys)
            for camera in sorted(cameras)
        ]
        return chart(f"{title} per camera", lines)

    # The labels of a network of one camera are the camera's, and drawn as such.
    drawn_below = ("clusters", "silhouette", "nmi") if len(networks) > 1 else ()
    figures = [key for key in _figures(epochs) if key not in drawn_below]
    return [
        *(drawn for key in figures for drawn in per_network(title_of(key), key)),
        *per_camera("clusters", "clusters"),
        *per_camera("silhouette", "silhouette"),
        *(drawn for key, title in QUALITY.items() for drawn in per_camera(title, "quality", key)),
        *(
            drawn
            for part in _timed(epochs)
            for drawn in per_network(f"Seconds of {part}", "seconds", part, from_zero=True)
        ),
    ]


def _timed(epochs: Sequence[Epoch]) -> Sequence[str]:
    """Name the parts whose seconds were taken."""
    return next((tuple(epoch["seconds"]) for epoch in epochs if epoch.get("seconds")), ())


def chart(
    title: str, lines: Sequence[Line], *, percent: bool = False, from_zero: bool = False
) -> list[Markup]:
    """Draw the lines that have a value, under a title; no chart without any."""
    drawn = [line for line in lines if any(value is not None for value in line.y)]
    title = title[:1].upper() + title[1:] if not title.startswith("mAP") else title
    return [line_chart(title, drawn, percent=percent, from_zero=from_zero)] if drawn else []


def _line(name: str, epochs: Sequence[Epoch], *keys: str) -> Line:
    return Line(name, [int(epoch["epoch"]) for epoch in epochs], [value_of(epoch, keys) for epoch in epochs])


def value_of(epoch: Epoch, keys: Sequence[str]) -> float | None:
    """Give the number that lies under ``keys``, one below the other; None where there is none."""
    found: Any = epoch
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and abs(found) < _LARGEST else None
