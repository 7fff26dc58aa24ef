"""Runs side by side: what was set, and what came of it. Runs that differ in the seed alone are one row."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any, Final

from icsr_cli.errors import UsageError
from icsr_cli.runs import RunFolder
from icsr_cli.runs.evaluation import read_evaluations

#: Figures of retrieval, as evaluation.json has them; shares.
_RETRIEVAL: Final = ("mAP", "rank_1", "mINP")
#: Label quality of the last epoch: of what the network was trained on.
_QUALITY: Final = ("nmi", "pairwise_f")
_DIGITS: Final = {"nmi": 3, "pairwise_f": 3, "loss": 3}
_TITLES: Final = {
    "rank_1": "Rank-1",
    "nmi": "label NMI",
    "pairwise_f": "pairwise F",
    "seconds": "seconds of the stage",
}


@dataclass(frozen=True)
class Row:
    """One run, or several that differ in the seed alone.

    ``settings``: dotted keys and what they say. ``seeds``: each once. ``figures``: by name, a value for each
    seed that has it, the mean of its runs if it has several. ``epochs``: the metrics of each run.
    """

    name: str
    runs: tuple[RunFolder, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, str]
    figures: Mapping[str, tuple[float, ...]]
    epochs: tuple[list[dict[str, Any]], ...]


@dataclass(frozen=True)
class Comparison:
    """Rows in the order the runs were given; the settings they do not share; the figures any of them has."""

    rows: tuple[Row, ...]
    differing: tuple[str, ...]
    figures: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """What the rows are called."""
        return [row.name for row in self.rows]

    def set_by_row(self) -> list[list[str]]:
        """Give a line for each setting that differs: its key, and its value in each row."""
        return [[key, *(row.settings.get(key, "-") for row in self.rows)] for key in self.differing]

    def came_to_by_row(self) -> list[list[str]]:
        """Give a line for each figure: its title, and its text in each row."""
        return [[title(name), *(text_of(row, name) for row in self.rows)] for name in self.figures]


def compare(runs: Sequence[RunFolder]) -> Comparison:
    """Gather what is to be held side by side.

    Raises:
        UsageError: a run comes twice.
        RunError: a run is damaged.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise UsageError("A run was named twice: each counts once.")
    groups: dict[str, list[tuple[RunFolder, int, dict[str, str]]]] = {}
    for run in runs:
        settings = {"stage": run.stage, **dict(by_method(run.settings())), **_given(run)}
        seed = int(settings.pop("seed", "0"))  # a whole number, or the settings were refused
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append((run, seed, settings))
    rows = tuple(_row(members) for members in groups.values())
    names = [row.name for row in rows]
    # Rows that would read alike are named by their folder.
    rows = tuple(
        row if names.count(row.name) == 1 else replace(row, name=str(row.runs[0].path)) for row in rows
    )
    keys = dict.fromkeys(key for row in rows for key in row.settings)
    differing = tuple(key for key in keys if _differs(key, rows))
    return Comparison(rows, differing, tuple(dict.fromkeys(name for row in rows for name in row.figures)))


def _differs(key: str, rows: Sequence[Row]) -> bool:
    """Tell whether rows have other values of a setting, or one lacks it that has others of its method.

    So it is with runs of older releases, which knew fewer settings; what another method has is no difference.
    """
    lacking = [row for row in rows if key not in row.settings]
    others = f"{key.rpartition('.')[0]}."
    return len({row.settings[key] for row in rows if row not in lacking}) > 1 or any(
        name.startswith(others) and "." not in name.removeprefix(others)
        for row in lacking
        for name in row.settings
    )


def _given(run: RunFolder) -> dict[str, str]:
    """Give what a run was trained with beside its settings, by dotted keys, as ``run.json`` has it.

    Labels and weights of the cam stage of one command are not named by its folder, which is another for each
    seed, but by its settings.
    """
    info = run.info()
    files = {
        "plugins": info.get("plugins") or [],
        "pairs": [[info["pairs"]["file"], info["pairs"]["sha256"]]] if info.get("pairs") else [],
        "local": [[info["local"], info.get("local_sha256")]] if info.get("local") else [],
        "images": [["training images", info["images"]]] if "images" in info else [],
    }
    found = {
        f"given.{key}": ", ".join(f"{name} ({str(digest)[:8]})" for name, digest in those) or "none"
        for key, those in files.items()
    }
    found["given.cameras"] = said(info.get("cameras") or "all")
    if info.get("after") is None:
        return found
    found["given.local"] = "of its cam stage"
    if info.get("init") == "cam":
        found[f"{run.stage}.model.weights"] = "cam"
    cam = run.path.parents[1] / "cam" / info["after"]
    if (cam / "settings.yaml").is_file():
        settings = {key: value for key, value in RunFolder(cam).settings().items() if key == "cam"}
        found |= dict(by_method(settings))
    return found


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Give the mean, and the standard deviation of the sample where there are several values."""
    return mean(values), stdev(values) if len(values) > 1 else None


def title(figure: str) -> str:
    """Name a figure as it is written; shares are written in per cent."""
    name, *of = figure.split(" ", 1)
    return " ".join([_TITLES.get(name, name), *of, *(["%"] if _is_share(figure) else [])])


def text_of(row: Row, figure: str) -> str:
    """Write a figure of a row: the mean, and the deviation if values differ; ``-`` where it has none."""
    if figure not in row.figures:
        return "-"
    scale, digits = (100.0, 1) if _is_share(figure) else (1.0, _DIGITS.get(figure.partition(" (")[0], 0))
    middle, deviation = spread([scale * value for value in row.figures[figure]])
    if not deviation:
        text = f"{middle:,.{digits}f}"
    else:
        text = f"{middle:,.{max(digits, 1)}f} ± {deviation:,.{max(digits, 1)}f}"
    known = len(row.figures[figure])
    return text if known == len(row.seeds) else f"{text} (of {known})"


def _is_share(figure: str) -> bool:
    return figure.partition(" (")[0] in _RETRIEVAL or figure == "kept"


def _row(members: Sequence[tuple[RunFolder, int, dict[str, str]]]) -> Row:
    runs = tuple(run for run, _, _ in members)
    epochs = tuple(run.metrics() for run in runs)
    # A seed that was run again is no second seed: its runs are one value.
    by_name: dict[str, dict[int, list[float]]] = {}
    for (run, seed, _), lines in zip(members, epochs, strict=True):
        for figure, value in (_measured(run) | figures_of(lines)).items():
            by_name.setdefault(figure, {}).setdefault(seed, []).append(value)
    figures = {figure: tuple(map(mean, of_seed.values())) for figure, of_seed in by_name.items()}
    group = str(runs[0].info().get("group") or runs[0].path.name)
    name = runs[0].path.name if len(runs) == 1 else group
    seeds = tuple(dict.fromkeys(seed for _, seed, _ in members))
    return Row(name, runs, seeds, members[0][2], figures, epochs)


def _measured(run: RunFolder) -> dict[str, float]:
    """Give what ``icsr eval`` kept of a run, shares from 0 to 1."""
    found: dict[str, float] = {}
    for entry in read_evaluations(run.path):
        of = _of(run, entry)
        found |= {f"{key}{of}": float(entry[key]) for key in _RETRIEVAL if entry.get(key) is not None}
    return found


def figures_of(epochs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Give what training came to by its metrics; figures of shares from 0 to 1, seconds, counts."""
    found: dict[str, float] = {}
    if not epochs:
        return found
    last = list({line.get("part"): line for line in epochs}.values())  # one for each network
    of, judged = "", [line["quality"].get("refined", {}) for line in last if "quality" in line]
    if not judged:  # of a cam run, whose cameras are judged each for itself
        of, judged = " (mean of cameras)", last
    for key in _QUALITY:
        values = [float(one[key]) for one in judged if one.get(key) is not None]
        if values:
            found[f"{key}{of}"] = mean(values)
    for key in ("clusters", "loss"):
        values = [float(line[key]) for line in last if key in line]
        if values:
            found[key] = sum(values) if key == "clusters" else mean(values)
    if "kept" in last[0]:
        former = sum(last[0].get(key, 0) for key in ("kept", "discarded", "noise"))  # of runs before 0.2
        images = last[0].get("images", former)
        found["kept"] = last[0]["kept"] / max(1, images)
    found["epochs"] = float(epochs[-1]["epoch"])
    found["seconds"] = sum(float(part) for line in epochs for part in line.get("seconds", {}).values())
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _of(run: RunFolder, entry: Mapping[str, Any]) -> str:
    """Say of an evaluation what is not as usual: data set, weights, protocol, re-ranking, normalisation.

    So is an epoch that the test set chose: no honest figure, whatever stands beside it.
    """
    usual = {
        "dataset": run.dataset,
        "weights": "best.safetensors",
        "protocol": "cross-camera",
        "rerank": None,
        "debias": None,
    }
    odd = [str(entry[key]) for key, value in usual.items() if entry.get(key, value) != value]
    if run.chosen_by == "test-map" and entry.get("weights", "best.safetensors") == "best.safetensors":
        odd.append("epoch chosen by the test set")
    return f" ({', '.join(odd)})" if odd else ""


def by_method(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give dotted keys with texts: a choice as its methods, and their options under the methods' names.

    ``global.clusterer`` is ``dbscan``, ``global.clusterer.dbscan.eps`` is ``0.5``: options stand side by
    side where two runs chose the same method. One that is chosen twice has its place before its name.
    """
    for key, value in tree.items():
        chosen = _choices(value)
        if chosen is not None:
            yield f"{prefix}{key}", ", ".join(one["method"] for one in chosen) or "none"
            names = [one["method"] for one in chosen]
            for place, (name, one) in enumerate(zip(names, chosen, strict=True)):
                options = {own: option for own, option in one.items() if own != "method"}
                which = f".{place}" if names.count(name) > 1 else ""
                yield from by_method(options, f"{prefix}{key}{which}.{name}.")
        elif isinstance(value, Mapping):
            yield from by_method(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", said(value)


def _choices(value: Any) -> list[Mapping[str, Any]] | None:
    """Give the methods with their options, where a value is such a choice or a list of them."""
    several = value if isinstance(value, list) else [value]
    chosen = (isinstance(one, Mapping) and isinstance(one.get("method"), str) for one in several)
    return several if all(chosen) else None


def said(value: Any) -> str:
    """Write a value as it is read."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {said(one)}" for key, one in value.items())
    return ", ".join(said(item) for item in value) or "none" if isinstance(value, list) else str(value)
