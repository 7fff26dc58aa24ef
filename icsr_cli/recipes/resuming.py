"""A run goes on, or another joins its group: what is asked now is held against what it was begun with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

from icsr_cli import config
from icsr_cli.config.schema import Settings
from icsr_cli.errors import UsageError
from icsr_cli.plain_yaml import flat
from icsr_cli.progress import Progress
from icsr_cli.recipes.inheriting import with_model, with_network
from icsr_cli.recipes.wish import Wish, find_local, images_of, pairs_of, resolve, use_local
from icsr_cli.runs import RunFolder, newest, open_run
from icsr_cli.runs.folder import MAY_CHANGE
from icsr_cli.runs.pairs import fingerprint, say_pairs
from icsr_cli.types import Dataset


def resume(
    data: Dataset, stage: str, wish: Wish, run: Path | None, progress: Progress
) -> tuple[RunFolder, Settings]:
    """Find the run to go on with: ``run``, or the newest.

    Raises:
        UsageError: it was started with something else than is asked for now.
        RunError: there is none.
    """
    folder = open_run(run) if run else newest(wish.runs_root, data.name, stage, file="settings.yaml")
    if folder.stage != stage or folder.dataset != data.name:
        raise UsageError(
            f"{folder.path} is a {folder.stage} run of {folder.dataset}, not a {stage} run of {data.name}."
        )
    _check_same_inputs(folder, data, wish)
    began = config.load_run(folder.path / "settings.yaml")
    if wish.method not in (None, began.method):
        raise UsageError(
            f"The run {folder.path} was started with the method {began.method}, not {wish.method}. Leave "
            "--method out, or start a new run without --resume."
        )
    typed = wish.config and wish.config_typed
    settings = _asked_again(folder, began, data, wish) if typed else _asked_beside(folder, began, wish)
    if different := _differences(stage, began, settings):
        raise UsageError(
            f"The run {folder.path} was started with other settings; it goes on as it began or not at all:\n"
            + "\n".join(different)
            + "\nLeave these options out, or start a new run without --resume."
        )
    if wish.facts:
        folder.update_info(**wish.facts)
    progress.note(f"Going on with {folder.path}")
    return folder, settings


def like_others(data: Dataset, stage: str, wish: Wish, group: str) -> Wish:
    """Hold a run that is to join a group against one that is there: the seed alone may be another.

    Gives the wish, with the local labels of the others where it names none. Raises UsageError where more is
    another.
    """
    pairs = pairs_of(wish, data)
    known = None if pairs is None else fingerprint(pairs, data.train.paths)
    for path in sorted((wish.runs_root / data.name / stage).glob(f"{escape(group)}-seed*/settings.yaml")):
        folder = open_run(path.parent)
        began = config.load_run(path)
        info = folder.info()
        settings = _asked_again(folder, began, data, wish).model_copy(update={"seed": began.seed})
        _check_same_plugins(folder, info.get("plugins", []), wish.plugins)
        different = _differences(stage, began, settings) + _other_inputs(info, wish, known)
        if (kept := folder.local) is not None and not info.get("after"):
            given = Path(str(info["local"]))
            if wish.local is None:
                same = given.is_file() and given.read_bytes() == kept.read_bytes()
                wish = replace(wish, local=given if same else kept)
            elif find_local(wish.local, wish.runs_root, folder.dataset).read_bytes() != kept.read_bytes():
                different.append("  - --local: other labels than then")
        if different:
            raise UsageError(
                f"{wish.name} is not there, and would begin with other settings than {folder.path}:\n"
                + "\n".join(different)
                + "\nGive the options again that the group was started with."
            )
    return wish


def _other_inputs(info: Mapping[str, Any], wish: Wish, known: str | None) -> list[str]:
    """List the cameras and pairs (``known``: their hash) that are others than a run's, a line each."""
    before_and_now = {
        "cameras": (info.get("cameras"), wish.cameras and list(wish.cameras)),
        "pairs": ((info.get("pairs") or {}).get("sha256"), known),
    }
    different = []
    for name, (then, now) in before_and_now.items():
        if then and not now:
            different.append(f"  - --{name}: given then, not now")
        elif now and not then and not wish.after:  # after a cam run they may be that run's
            different.append(f"  - --{name}: given now, not then")
        elif now and then not in (None, now):
            different.append(f"  - --{name}: others than then")
    return different


def _differences(stage: str, began: Settings, asked: Settings) -> list[str]:
    """List the settings of a stage that are others than a run was started with, a line each."""
    # Both through the schema: a setting that is younger than the run has its default in ``began``.
    before, now = (dict(flat(settings.dump(stage))) for settings in (began, asked))
    return [
        f"  - {key}: {before.get(key, 'not set')!r} in the run, {now.get(key, 'not set')!r} asked for"
        for key in sorted((before.keys() | now.keys()) - MAY_CHANGE)
        if before.get(key) != now.get(key)
    ]


def _asked_again(folder: RunFolder, began: Settings, data: Dataset, wish: Wish) -> Settings:
    """Give the settings that a wish asks for, with what the run has found."""
    again = partial(resolve, data, wish, Progress(), ())
    settings = use_local(again(), again, wish.local or folder.local)
    if settings.of(folder.stage).model.weights == folder.info().get("init"):
        model = began.of(folder.stage).model
        settings = with_network(settings, folder.stage, model, began.image, again)
    return _with_weights_of(folder, began, settings)


def _asked_beside(folder: RunFolder, began: Settings, wish: Wish) -> Settings:
    """Give the settings of the run, and over them what a wish asks for without a settings file."""
    # The settings of the other stage are not written down here: nothing can reach into them.
    other = "global." if folder.stage == "cam" else "cam."
    options = {key: value for key, value in wish.options.items() if not key.startswith(other)}
    assignments = [one for one in wish.assignments if not one.strip().startswith(other)]
    settings = config.load_run(folder.path / "settings.yaml", options=options, assignments=assignments)
    return _with_weights_of(folder, began, settings)


def _with_weights_of(folder: RunFolder, began: Settings, settings: Settings) -> Settings:
    """Give settings that name the weights a run began from by the file that was found for it then."""
    model = settings.of(folder.stage).model
    if model.weights != folder.info().get("init"):
        return settings
    weights = began.of(folder.stage).model.weights
    return with_model(settings, folder.stage, model.model_copy(update={"weights": weights}))


def _check_same_inputs(folder: RunFolder, data: Dataset, wish: Wish) -> None:
    """Hold what is not among the settings against the run: images, labels, cameras, pairs, plug-ins."""
    before = folder.info()
    if before.get("images", now := images_of(data)) != now:
        raise UsageError(
            f"The training images of {data.name!r} are not those that the run {folder.path} was started "
            "with: they were prepared again, or added to. Start a new run without --resume; --init RUN "
            "takes the weights of this one."
        )
    if wish.local is not None:
        asked, kept = find_local(wish.local, wish.runs_root, folder.dataset), folder.local
        if kept is None or asked.read_bytes() != kept.read_bytes():
            raise UsageError(
                f"The run {folder.path} was started with the local labels {before.get('local')}, as they "
                f"were then, not with those of {wish.local}. Leave --local out, or start a new run without "
                "--resume."
            )
    cameras = wish.cameras if folder.stage == "cam" else None
    if cameras is not None and list(cameras) != before.get("cameras"):
        raise UsageError(
            f"The run {folder.path} was started with the cameras "
            f"{before.get('cameras') or 'of the whole data set'}, not with {list(cameras)}. Leave "
            "--cameras out, or start a new run without --resume."
        )
    pairs = pairs_of(wish, data)
    known = before.get("pairs") or {}
    if pairs is not None and fingerprint(pairs, data.train.paths) != known.get("sha256"):
        raise UsageError(
            f"The run {folder.path} was started with {say_pairs(known) or 'no pairs'}, and {wish.pairs} says "
            "something else. Leave --pairs out, or start a new run without --resume."
        )
    _check_same_plugins(folder, before.get("plugins", []), wish.plugins)


def _check_same_plugins(folder: RunFolder, before: Iterable[Any], now: Sequence[tuple[str, str]]) -> None:
    """Ask for the plug-ins that the run was started with: nothing else than the command line loads code."""
    known = {digest: path for path, digest in before}
    given = {digest: path for path, digest in now}
    missing = [path for digest, path in known.items() if digest not in given]
    extra = [path for digest, path in given.items() if digest not in known]
    if missing or extra:
        asked = " ".join(f"--plugin {path}" for path in known.values()) or "no --plugin"
        raise UsageError(
            f"The run {folder.path} was started with {asked}, and goes on with the same, unchanged; "
            f"{', '.join(missing) or 'none'} missing or changed, {', '.join(extra) or 'none'} too much."
        )
