"""One command that trains both stages: what began a run, and what it asked of the stage behind."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from icsr_cli.config.schema import Settings
from icsr_cli.errors import RunError, UsageError, some
from icsr_cli.files import checksum
from icsr_cli.progress import Progress
from icsr_cli.recipes import opening, resuming
from icsr_cli.recipes.wish import Wish
from icsr_cli.runs import RunFolder, open_run
from icsr_cli.runs.places import clear_not_begun, find_runs
from icsr_cli.types import Dataset


def begun_by(data: Dataset, wishes: Sequence[Wish]) -> tuple[Path | None, list[str]]:
    """Find the command that began the newest run, of the wishes' names if they have any, and its stages.

    Gives its first run, too, where no name says which that is; no stages where there is no run.
    """
    root, names = wishes[0].runs_root, {wish.name for wish in wishes} - {None}
    runs = _begun(root, data.name)
    found = [run for run in runs if run.path.name in names or not names]
    if (method := wishes[0].method) is not None:
        found = [run for run in found if run.settings().get("method") == method]
    if not found:
        return None, []
    first, info = found[-1], found[-1].info()
    if info.get("after"):  # a cam run that was removed is not missed
        first = next((run for run in runs if run.stage == "cam" and run.path.name == info["after"]), first)
    both = first is not found[-1] or "then" in info
    return None if names else first.path, ["cam", "global"] if both else [first.stage]


def go_on_or_begin(
    data: Dataset, stage: str, wish: Wish, run: Path | None, progress: Progress
) -> tuple[RunFolder, Settings]:
    """Resume ``run`` or the one a wish names; begin it where several were asked for and it is not there.

    Raises what ``resuming.resume`` and ``opening.start`` do, and RunError where it never began.
    """
    may_begin = "group" in wish.facts or wish.after is not None
    root = wish.runs_root
    if wish.name is not None:
        there = root / data.name / stage / wish.name
        if clear_not_begun(there) and not may_begin:
            raise RunError(
                f"{there} was stopped before it began. The same command without --resume begins it."
            )
        found = there.is_dir()
        if not found and (of_group := [one for one in _begun(root, data.name) if _group(one) == wish.name]):
            raise UsageError(f"{wish.name} is a group of seeds. {_whole(of_group[-1])}")
        run = there if found or not may_begin else None
    elif wish.after is not None:  # the newest run that the command of that cam run began, if any
        runs = reversed(_begun(root, data.name, "global"))
        run = next((one.path for one in runs if one.info().get("after") == wish.after.name), None)
    if run is not None or not may_begin:
        return resuming.resume(data, stage, wish, run, progress)
    asked = _planned(wish)
    progress.note(f"{asked.name or f'The {stage} run'} is not there: it begins.")
    return opening.start(data, stage, asked, progress)


def group_left(run: RunFolder) -> str:
    """Say which seeds of the group of a run are not trained to the end, if any, and how they go on."""
    beside = {
        str(each): run.path.with_name(f"{_group(run)}-seed{each}") for each in run.info().get("seeds", ())
    }
    there = {seed: RunFolder(path) for seed, path in beside.items() if (path / "run.json").is_file()}
    left = [seed for seed in beside if seed not in there or there[seed].info().get("status") != "finished"]
    return f"Of the group {_group(run)} is not finished: seed {some(left)}. {_whole(run)}" if left else ""


def _whole(run: RunFolder) -> str:
    seeds = ",".join(map(str, run.info().get("seeds", ()))) or "..."
    return (
        f"All of it goes on with the command that began it and --seeds {seeds} --name {_group(run)} --resume."
    )


def _group(run: RunFolder) -> str | None:
    return run.info().get("group")


def _begun(*of: Any) -> list[RunFolder]:
    return [run for run in find_runs(*of) if (run.path / "settings.yaml").is_file()]


def _planned(wish: Wish) -> Wish:
    """Lay what the command of the cam run ``wish.after`` asked of the global stage beneath a wish."""
    info = {} if wish.after is None else open_run(wish.after).info()
    if wish.after is None or not (then := info.get("then")):
        return wish
    config = wish.config if wish.config_typed else None
    if config is None and then["config"]:
        config = wish.after / "then.yaml"
        if checksum(config) != then.get("config_sha256"):
            raise RunError(
                f"{config} has changed since the run began. Put {then['config']} there, as it was."
            )
    now = {key: value for key, value in wish.options.items() if value is not None}
    pairs = wish.after / "pairs.csv"
    return replace(
        wish,
        name=wish.name or then["name"],
        method=wish.method or then["method"],
        config=config,
        options={**then["options"], **now},
        assignments=(*then["assignments"], *wish.assignments),
        pairs=wish.pairs or (pairs if info.get("pairs") else None),
        facts={**{key: info[key] for key in ("group", "seeds", "tensorboard") if key in info}, **wish.facts},
    )
