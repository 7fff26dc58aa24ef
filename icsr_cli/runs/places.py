"""Where runs lie, ``<runs>/<data set>/<stage>/<run>/``: a new one is begun there, and the others found."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icsr_cli.errors import RunError, UsageError
from icsr_cli.runs.folder import RunFolder, now, warn_once
from icsr_cli.runs.lock import training_lock


def create(root: Path, dataset: str, stage: str, *, name: str | None = None) -> RunFolder:
    """Make a new, empty run folder; its name is the time of its start unless ``name`` is given.

    Raises:
        RunError: where a run of that name is there already.
    """
    with begin(root, dataset, stage, name=name) as run:
        return run


@contextmanager
def begin(root: Path, dataset: str, stage: str, *, name: str | None = None) -> Iterator[RunFolder]:
    """Create a run folder and hold it until the rest of it is written down.

    Leaves none where that fails: it would be taken for the newest one.
    """
    run = RunFolder(_new_folder(root / dataset / stage, name))
    with training_lock(run.path):
        try:
            run.update_info(format=1, stage=stage, dataset=dataset, status="running", started=now())
            yield run
        except BaseException:
            run.remove()
            raise


def _new_folder(parent: Path, name: str | None) -> Path:
    check_free(parent, name)
    parent.mkdir(parents=True, exist_ok=True)
    base = name or time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        path = parent / f"{base}{suffix}"
        try:
            path.mkdir()
        except FileExistsError:
            check_free(parent, name)  # another process was faster
            continue
        return path
    raise RunError(f"Too many runs were started in {parent} within one second.")


def check_free(parent: Path, name: str | None) -> None:
    """Refuse a name that is no plain name of one folder, or that a run in the folder ``parent`` has.

    A run of that name that never began is removed.

    Raises:
        UsageError: it leads elsewhere, is hidden, too long, or cannot be shown.
        RunError: a run has it.
    """
    if name is None:
        return
    plain = name and name.strip() == Path(name).name == name and "\\" not in name and name.isprintable()
    if not plain or name.startswith(".") or len(os.fsencode(name)) > 200:
        raise UsageError(
            f"--name {name!r} must be a plain name: no path, no leading dot, no space at its "
            "ends, no control character, at most 200 bytes."
        )
    _clear_unused(parent / name)
    if (parent / name).exists():
        raise RunError(
            f"There is a run {parent / name} already. Go on with it by --resume, or take another --name."
        )


def _clear_unused(path: Path) -> None:
    """Remove the folder of a run that ended before its first epoch: there is nothing in it to go on with."""
    if clear_not_begun(path) or not (path / "run.json").is_file() or _has_trained(path):
        return
    if (run := RunFolder(path)).info().get("status") in ("failed", "interrupted"):
        run.remove()


def clear_not_begun(path: Path) -> bool:
    """Remove the folder of a run whose process was killed before it had written it down; say whether it was.

    Its settings are not there, which are the last, and nobody holds it.
    """
    if not path.is_dir() or (path / "settings.yaml").exists() or _has_trained(path):
        return False
    if not (path / "run.json").is_file() and any(path.glob("[!.]*")):  # somebody's own
        return False
    try:
        with training_lock(path):
            RunFolder(path).remove()
    except RunError:  # it is just being begun
        return False
    return True


def _has_trained(path: Path) -> bool:
    return any((path / name).exists() for name in ("metrics.jsonl", "checkpoints", "labels"))


def open_run(path: Path) -> RunFolder:
    """Open a run folder by its path; a file in it means itself, and is refused.

    Raises:
        RunError: where it is no run folder.
    """
    run = run_of(path)
    if run is not None and run.path != path:
        raise RunError(f"{path} lies in the run {run.path}. Give the run itself: {run.path}.")
    if run is not None:
        return run
    why = "there is no run.json in it" if path.exists() else "it is not there"
    raise RunError(f"{path} is no run folder: {why}. Runs lie in runs/<data set>/<cam or global>/.")


def run_of(path: Path) -> RunFolder | None:
    """Give the run that a file or folder is, or lies in, if it does."""
    # The folders that a path does not name are there all the same, as the current one is; the one above
    # ``..`` is not that which stands before it.
    named = ".." not in path.parts and (len(path.parents) > 1 or path.is_absolute())
    above = path.parents[:2] if named else (path.parent.resolve() / path.name).parents[:2]
    folders = (path, *above)
    return next((RunFolder(folder) for folder in folders if (folder / "run.json").is_file()), None)


def find_runs(root: Path, dataset: str | None = None, stage: str | None = None) -> list[RunFolder]:
    """Give the runs under ``root``, oldest first. A damaged ``run.json`` is left out, with a word."""
    found = []
    for path in root.glob(f"*/{stage or '*'}/*/run.json"):
        if dataset not in (None, path.parts[-4]):
            continue
        run = RunFolder(path.parent)
        try:
            found.append((str(run.info().get("started", "")), run.path.name, run))
        except RunError as error:
            warn_once(f"{error} The run is left out.")
    return [run for *_, run in sorted(found, key=lambda one: one[:2])]


def newest(
    root: Path, dataset: str | None = None, stage: str | None = None, *, file: str = "run.json"
) -> RunFolder:
    """Give the newest run that holds ``file``.

    Raises:
        RunError: where there is none; the message names the command that makes one.
    """
    found = [run for run in find_runs(root, dataset, stage) if (run.path / file).is_file()]
    if found:
        return found[-1]
    what = f"{stage or 'training'} run{f' of {dataset}' if dataset else ''}"
    command = f"icsr train {stage or 'cam'}{f' -d {dataset}' if dataset else ''}"
    raise RunError(
        f"There is no {what} with {'a ' + file if file != 'run.json' else 'anything in it'} under {root}. "
        f"Make one with: {command}"
    )
