"""The epochs of a run, as curves and as a table: what ``metrics.jsonl`` holds, for a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from markupsafe import Markup

from icsr_cli.reports.charts import Line, line_chart
from icsr_cli.reports.page import Table, percent, table, table_of

#: One line of ``metrics.jsonl``.
Epoch: TypeAlias = Mapping[str, Any]

#: The labels that are judged; what they are is said on the page.
LABELS: Final = ("global", "local", "refined")
QUALITY: Final = {
    "nmi": "Label quality: NMI",
    "pairwise_f": "Label quality: pairwise F",
    "bcubed_f": "Label quality: BCubed F",
}
_COLUMNS: Final = {
    "part": "network",
    "epoch": "epoch",
    "loss": "loss",
    "clusters": "clusters",
    "kept": "kept",
    "discarded": "thrown out",
    "noise": "noise",
    "nodes": "information nodes",
    "silhouette": "silhouette",
    "nmi": "NMI",
    "nmi global": "NMI global",
    "nmi local": "NMI local",
    "nmi refined": "NMI refined",
    "pairwise_f global": "pairwise F global",
    "pairwise_f local": "pairwise F local",
    "pairwise_f refined": "pairwise F refined",
    "test_mAP": "mAP on the test set",
}


def curves(epochs: Sequence[Epoch], stage: str, names: Sequence[str] = ()) -> list[Markup]:
    """Draw every curve that the epochs of a run of ``stage`` (``cam`` or ``global``) give.

    ``names``: of the cameras, where they are known.
    """
    return _cam_curves(epochs, names) if stage == "cam" else _global_curves(epochs)


def epoch_table(epochs: Sequence[Epoch], names: Sequence[str] = ()) -> Table:
    """Give the same numbers as a table."""
    rows = []
    for epoch in epochs:
        row = dict(epoch)
        row["part"] = network_name(row["part"], names) if "part" in row else None
        for name, judged in epoch.get("quality", {}).items():
            row |= {f"{measure} {name}": judged[measure] for measure in ("nmi", "pairwise_f")}
        rows.append(row)
    return table_of(rows, _COLUMNS)


def seconds_table(epochs: Sequence[Epoch]) -> Table | None:
    """Sum the seconds of each part over the epochs; None where they were not taken."""
    timed = [epoch["seconds"] for epoch in epochs if epoch.get("seconds")]
    if not timed:
        return None
    totals = {part: sum(float(seconds.get(part, 0.0)) for seconds in timed) for part in timed[0]}
    everything = sum(totals.values()) or 1e-9
    rows = [
        [part, f"{total:,.1f}", f"{total / len(timed):,.2f}", percent(total / everything)]
        for part, total in totals.items()
    ]
    rows.append(["together", f"{everything:,.1f}", f"{everything / len(timed):,.2f}", percent(1.0)])
    return table(("part", "seconds", "seconds per epoch", "share"), rows)


def network_name(part: str, names: Sequence[str] = ()) -> str:
    """Name the network of a line of a cam run: ``shared``, or ``camera 3``, or by the camera's own name."""
    number = part.removeprefix("camera_")
    named = number.isdigit() and int(number) < len(names)
    return f"camera {names[int(number)]}" if named else part.replace("_", " ")


def _global_curves(epochs: Sequence[Epoch]) -> list[Markup]:
    shares = [_shares(epoch) for epoch in epochs]
    timed: Mapping[str, float] = next((epoch["seconds"] for epoch in epochs if epoch.get("seconds")), {})
    lost = [_line("thrown out", shares, "discarded"), _line("noise", shares, "noise")]
    return [
        *chart("Loss", [_line("loss", epochs, "loss")]),
        *chart("Clusters", [_line("clusters", epochs, "clusters")]),
        *chart("Images left out", lost, percent=True, from_zero=True),
        *chart("Silhouette", [_line("silhouette", epochs, "silhouette")]),
        *(
            drawn
            for measure, title in QUALITY.items()
            for drawn in chart(title, [_line(name, epochs, "quality", name, measure) for name in LABELS])
        ),
        *chart("mAP on the test set", [_line("mAP", epochs, "test_mAP")], percent=True),
        *chart("Seconds per part", [_line(part, epochs, "seconds", part) for part in timed], from_zero=True),
    ]


def _cam_curves(epochs: Sequence[Epoch], names: Sequence[str]) -> list[Markup]:
    """Draw one line per network for the loss, and one per camera for its labels."""
    networks: dict[str, list[Epoch]] = {}
    cameras: dict[int, list[Epoch]] = {}
    for epoch in epochs:
        networks.setdefault(str(epoch["part"]), []).append(epoch)
        for camera in epoch["cameras"]:
            cameras.setdefault(int(camera), []).append(epoch)

    def per_camera(title: str, *keys: str) -> list[Markup]:
        lines = [
            _line(network_name(f"camera_{camera}", names), cameras[camera], "cameras", str(camera), *keys)
            for camera in sorted(cameras)
        ]
        return chart(f"{title} per camera", lines)

    return [
        *chart("Loss", [_line(network_name(part, names), own, "loss") for part, own in networks.items()]),
        *per_camera("Clusters", "clusters"),
        *per_camera("Silhouette", "silhouette"),
        *(drawn for key, title in QUALITY.items() for drawn in per_camera(title, "quality", key)),
    ]


def chart(
    title: str, lines: Sequence[Line], *, percent: bool = False, from_zero: bool = False
) -> list[Markup]:
    """Draw the lines that have a value; no chart without any."""
    drawn = [line for line in lines if any(value is not None for value in line.y)]
    return [line_chart(title, drawn, percent=percent, from_zero=from_zero)] if drawn else []


def _line(name: str, epochs: Sequence[Epoch], *keys: str) -> Line:
    return Line(name, [int(epoch["epoch"]) for epoch in epochs], [value_of(epoch, keys) for epoch in epochs])


def value_of(epoch: Epoch, keys: Sequence[str]) -> float | None:
    """Give the number that lies under ``keys``, one below the other; None where there is none."""
    found: Any = epoch
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


def _shares(epoch: Epoch) -> Epoch:
    """Give the shares of all images that were thrown out, and that are noise."""
    images = sum(int(epoch.get(name, 0)) for name in ("kept", "discarded", "noise"))
    return {
        "epoch": epoch["epoch"],
        **{name: int(epoch.get(name, 0)) / max(images, 1) for name in ("discarded", "noise")},
    }
