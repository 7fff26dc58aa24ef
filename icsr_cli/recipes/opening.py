"""What a run starts from: its folder, settings, local labels and weights, found before anything is computed.

For the command line, the demo and the benchmarks alike.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, TypeAlias

import torch

from icsr_cli import config
from icsr_cli.choices import chosen
from icsr_cli.config.schema import ImageSettings, ModelSettings, Settings
from icsr_cli.errors import RunError, UsageError, some
from icsr_cli.files import write_bytes
from icsr_cli.models import faults, read_metadata, size_of
from icsr_cli.plain_yaml import flat
from icsr_cli.progress import Progress
from icsr_cli.recipes.evaluation import weights_of
from icsr_cli.recipes.spare_memory import check_parts
from icsr_cli.recipes.steps import Engine, build_network
from icsr_cli.runs import RunFolder, newest, open_run, run_of
from icsr_cli.runs.folder import MAY_CHANGE, begin
from icsr_cli.runs.labels import align_local, read_labels
from icsr_cli.runs.pairs import about_pairs, fingerprint, keep_pairs, read_pairs, say_pairs
from icsr_cli.types import Dataset, Pairs

#: Gives the settings of a run, with others laid beneath those that the user gave.
Resolved: TypeAlias = Callable[..., Settings]
#: Weights that are no file and no run, whatever a folder beside us is called.
_WORDS = ("imagenet", "pretrained", "none", "cam")


@dataclass(frozen=True)
class Wish:
    """What somebody asks of a run beside the data set.

    ``options``: dotted keys with values; ``assignments``: ``key=value``; ``config``: a settings file.
    ``config_typed``: whether it was named for this run, not for all. ``after``: the cam run of the same
    command, from which the global stage takes what it needs. ``then``: what the same command asks of the
    global stage behind this one. ``plugins``: (path, SHA-256) of each file that
    was loaded. ``pairs``: a file of what is known of pairs; ``pairs_labels``: the run, or label file, whose
    clusters it names. ``contents``: of ``config`` and ``pairs`` as they were at first, whatever becomes of
    them while a command trains one run after another. ``processes``: how many train. ``facts``: more of
    ``run.json``.
    """

    runs_root: Path
    method: str | None = None
    config: Path | None = None
    config_typed: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    assignments: Sequence[str] = ()
    local: Path | None = None
    after: Path | None = None
    then: "Wish | None" = None
    cameras: Sequence[int] | None = None
    plugins: Sequence[tuple[str, str]] = ()
    pairs: Path | None = None
    pairs_labels: Path | None = None
    contents: dict[Path, bytes] = field(default_factory=dict)
    name: str | None = None
    processes: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for file in (self.config, self.pairs):
            if file is not None and file not in self.contents:
                with suppress(OSError):  # whoever needs it tells why it cannot be read
                    self.contents[file] = file.read_bytes()

    def content(self, file: Path | None) -> bytes | None:
        """Give what ``config`` or ``pairs`` held at first; None where it could not be read."""
        return None if file is None else self.contents.get(file)

    def kept(self) -> dict[str, Any]:
        """Give what a run cannot be told again by ``--resume`` alone, as plain values."""
        return {
            "name": self.name,
            "method": self.method,
            "config": None if self.config is None else str(self.config.absolute()),
            "config_sha256": self.config and hashlib.sha256(self.contents[self.config]).hexdigest(),
            "options": {key: value for key, value in self.options.items() if value is not None},
            "assignments": list(self.assignments),
        }


def start(data: Dataset, stage: str, wish: Wish, progress: Progress) -> tuple[RunFolder, Settings]:
    """Make the folder of a new run; every fault is found before.

    Raises:
        UsageError: settings that do not fit, or that contradict the network of the cam run.
        RunError: local labels or a cam network are needed and not there, or damaged; a run of that name is
            there.
        ModelError, InputError: the network cannot be built, or its weights not be had.
    """
    if "group" in wish.facts:
        wish = _like_others(data, stage, wish, wish.facts["group"])
        if wish.then is not None:  # now, not when the cam stage is trained
            after = wish.runs_root / data.name / stage / str(wish.name)
            _like_others(data, "global", replace(wish.then, after=after), wish.facts["group"])
    settings, resolved, found = _fitting(data, stage, wish, progress)
    facts: dict[str, Any] = {**wish.facts, "plugins": [list(plugin) for plugin in wish.plugins], **found}
    facts |= {"camera_names": list(data.camera_names), "layout": data.layout, "images": images_of(data)}
    if data.settings:
        facts["dataset_settings"] = dict(data.settings)
    if wish.after is not None:
        facts["after"] = wish.after.name
    if wish.then is not None:
        facts["then"] = wish.then.kept()
    local = None
    if stage == "cam":
        facts["cameras"] = _known_cameras(data, wish.cameras)
    else:
        settings, local, found = _global_inputs(data, settings, wish, progress, resolved)
        facts |= found
    _check_network(settings, stage, wish.processes)
    _say_other_size(settings, stage, progress)
    pairs = _pairs_of(wish, data)
    if pairs is not None:
        facts["pairs"] = about_pairs(wish.pairs, pairs, data.train.paths)
        progress.note(f"Pairs: {say_pairs(facts['pairs'])}")
    with begin(wish.runs_root, data.name, stage, name=wish.name) as folder:
        folder.update_info(**facts, local=None)
        if local is not None:
            folder.keep_local(local)
        if pairs is not None:
            keep_pairs(folder.path, pairs, data.train.paths)
        if wish.then is not None and wish.then.config is not None:
            write_bytes(folder.path / "then.yaml", wish.then.contents[wish.then.config])
        progress.note(f"Run: {folder.path}")
        # Last: a run that has its settings can be gone on with.
        folder.write_settings(settings.dump(folder.stage))
    return folder, settings


def check(data: Dataset, stage: str, wish: Wish) -> None:
    """Find what is wrong with a later stage of several before the first one is trained.

    Raises what ``start`` does; what the cam stage will make is not looked for.
    """
    settings, resolved, _ = _fitting(data, stage, wish, Progress())
    if settings.of(stage).model.weights == "cam":
        cam, *_ = _fitting(data, "cam", wish, Progress())
        if cam.cam.network != "shared":
            raise UsageError(
                f"{stage}.model.weights: cam is the shared network of the cam stage, and cam.network is "
                f"{cam.cam.network}. Take --network shared; or --init imagenet, none or a file."
            )
        whose = "cam stage of this command"
        model = cam.cam.model.model_copy(update={"weights": "none"})
        settings = _like_another(settings, stage, model, cam.image, resolved, whose)
    _check_network(settings, stage, wish.processes)


def _fitting(
    data: Dataset, stage: str, wish: Wish, progress: Progress
) -> tuple[Settings, Resolved, dict[str, Any]]:
    """Give settings that fit the data, and facts for ``run.json``; weights of a run are found."""
    resolved = partial(resolve, data, wish, progress, (stage,))
    settings = resolved()
    if stage == "global":
        _check_looks(data, settings)
        if settings.global_.local is not None and wish.local is not None:
            raise UsageError(
                f"Local labels are asked for twice: those of {wish.local}, and global.local = "
                f"{settings.global_.local.method}. Leave one of them out."
            )
        settings = use_local(settings, resolved, wish.local)
    _check_tracks(data, settings, stage)
    named = settings.of(stage).model.weights
    if named in _WORDS or not Path(named).is_dir():
        return settings, resolved, {}
    weights = weights_of(open_run(Path(named)))
    progress.note(f"Weights: {weights}")
    return start_from_run(weights, stage, settings, resolved), resolved, {"init": named}


def _check_looks(data: Dataset, settings: Settings) -> None:
    looks = settings.eval_every > 0 or settings.select == "test-map"
    if looks and data.untested:
        raise UsageError(
            f"The data set {data.name!r} has no {' and no '.join(data.untested)} images to show a test mAP "
            "of. Leave --eval-every and --select test-map out."
        )


def images_of(data: Dataset) -> str:
    """Give the SHA-256 of what is trained on: paths and cameras, in order."""
    digest = hashlib.sha256(data.train.cameras.astype("<i8").tobytes())
    digest.update("\0".join(data.train.paths).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def uses_local(settings: Settings) -> bool:
    """Whether a refiner of the global stage asks for local labels."""
    return any("local" in refiner.needs for refiner in settings.global_.refiners)


def use_local(settings: Settings, resolved: Resolved, given: Path | None = None) -> Settings:
    """Have the local labels used that are ``given``, or made by ``global.local``: by ``majority`` if by none.

    A cam run may be given for its weights alone. Raises UsageError where the user's own refiners use none.
    """
    own = settings.global_
    asked = own.local is not None or (given is not None and own.model.weights != "cam")
    if uses_local(settings) or not asked:
        return settings
    refiners = ["majority", *(refiner.dump() for refiner in settings.global_.refiners)]
    settings = resolved({"global": {"refiners": refiners}})
    if not uses_local(settings):
        raise UsageError(
            "No refiner uses the local labels: add one that does (--refine majority or discard)."
        )
    return settings


def _check_tracks(data: Dataset, settings: Settings, stage: str) -> None:
    own = settings.of(stage)
    wanting = [f"{stage}.{key} ({method.method})" for key, method in chosen(own) if "tracks" in method.needs]
    if wanting and not data.train.has_tracks:
        raise UsageError(
            f"The training images of {data.name!r} have no tracks, which {', '.join(wanting)} needs. Prepare "
            "them with their tracks: icsr prepare folder NAME --pattern '{camera}/{track}/{name}.jpg'."
        )


def _known_cameras(data: Dataset, cameras: Sequence[int] | None) -> Sequence[int] | None:
    there = sorted(set(data.train.cameras.tolist()))
    if unknown := sorted(set(cameras or ()) - set(there)):
        named = some([str(camera) for camera in unknown])
        raise UsageError(f"The data set {data.name!r} has no camera {named}; it has {there}.")
    return cameras


def _check_network(settings: Settings, stage: str, processes: int) -> None:
    """Build the network as the stage will: its weights are whole and fit, as do the parts of a batch."""
    check_images(settings, stage)
    own, engine = settings.of(stage), Engine(torch.device("cpu"), "fp32")
    network = build_network(own.model, 0, engine, settings.image.size)
    check_parts(network.base, own, processes=processes, sync_bn=settings.sync_bn)


def check_images(settings: Settings, stage: str) -> None:
    """Raise UsageError, with every setting that the network of a stage or its images cannot have."""
    own = settings.of(stage)
    wrong = [f"model.{fault}" for fault in faults(settings.image.size, **dict(own.model))]
    if (pad := own.augmentation.pad) >= min(settings.image.size):
        wrong.append(
            f"augmentation.pad: images of {settings.image.height} x {settings.image.width} would be cut to "
            f"their border alone by {pad} pixels. Take fewer."
        )
    if wrong:
        lines = [f"  - {stage}.{fault}" for fault in wrong]
        raise UsageError("Settings that do not fit:\n" + "\n".join(lines))


def _say_other_size(settings: Settings, stage: str, progress: Progress) -> None:
    named, here = settings.of(stage).model.weights, settings.image.size
    there = None if named in _WORDS else size_of(read_metadata(named))
    if there not in (None, here):
        progress.warn(
            f"{named} was trained on images of {there[0]} x {there[1]}, and these are {here[0]} x {here[1]}. "
            f"--height {there[0]} --width {there[1]} takes its size."
        )


def resolve(
    data: Dataset,
    wish: Wish,
    progress: Progress,
    stages: Iterable[str] = (),
    beneath: Mapping[str, Any] | None = None,
) -> Settings:
    """Resolve the settings of a run on ``data``; what its images cannot meet in ``stages`` is a fault."""
    return config.load_for(
        data,
        config=wish.config,
        content=wish.content(wish.config),
        method=wish.method,
        options=wish.options,
        assignments=wish.assignments,
        beneath=dict(beneath or {}),
        images=dict.fromkeys(stages, len(data.train)),
        note=progress.note if beneath is None else lambda message: None,
    )


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


def _like_others(data: Dataset, stage: str, wish: Wish, group: str) -> Wish:
    """Hold a run that is to join a group against one that is there: the seed alone may be another.

    Gives the wish, with the local labels of the others where it names none. Raises UsageError where more is
    another.
    """
    pairs = _pairs_of(wish, data)
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
        settings = _with_network(settings, folder.stage, model, began.image, again)
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
    return _with_model(settings, folder.stage, model.model_copy(update={"weights": weights}))


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
    pairs = _pairs_of(wish, data)
    known = before.get("pairs") or {}
    if pairs is not None and fingerprint(pairs, data.train.paths) != known.get("sha256"):
        raise UsageError(
            f"The run {folder.path} was started with {say_pairs(known) or 'no pairs'}, and {wish.pairs} says "
            "something else. Leave --pairs out, or start a new run without --resume."
        )
    _check_same_plugins(folder, before.get("plugins", []), wish.plugins)


def _pairs_of(wish: Wish, data: Dataset) -> Pairs | None:
    return read_pairs(wish.pairs, data.train.paths, wish.pairs_labels, wish.content(wish.pairs))


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


def _global_inputs(
    data: Dataset, settings: Settings, wish: Wish, progress: Progress, resolved: Resolved
) -> tuple[Settings, Path | None, dict[str, Any]]:
    """Find the local labels and the weights a global run starts from; gives facts for ``run.json``, too."""
    own = settings.global_
    needed = wish.local is not None or (own.local is None and uses_local(settings))
    from_cam = own.model.weights == "cam"
    if not (needed or from_cam):
        return settings, None, {}
    source = find_local(wish.local or wish.after, wish.runs_root, data.name)
    if needed:
        if not (align_local(read_labels(source), data.train, source) >= 0).any():
            raise RunError(
                f"{source} gives no training image a local label: its local_cluster holds none. Name a "
                "cam run, or make them: icsr labels generate --local cluster."
            )
        progress.note(f"Local labels: {source}")
    if from_cam:
        settings = start_from_run(find_cam_weights(source), "global", settings, resolved)
        progress.note(f"Weights: {settings.global_.model.weights}")
    return settings, source if needed else None, {"init": "cam"} if from_cam else {}


def _with_model(settings: Settings, stage: str, model: ModelSettings) -> Settings:
    name = {"cam": "cam", "global": "global_"}[stage]
    return settings.model_copy(update={name: settings.of(stage).model_copy(update={"model": model})})


def _with_network(
    settings: Settings, stage: str, model: ModelSettings, image: ImageSettings, resolved: Resolved
) -> Settings:
    """Give ``settings`` with a stage's network and images as another run has them, beneath the user's own."""
    own = {key: getattr(model, key) for key in _OF_THE_NETWORK}
    found = resolved({"image": image.model_dump(), stage: {"model": own}})
    settings = _with_model(settings, stage, found.of(stage).model)
    return settings.model_copy(update={"image": found.image})


#: What of a network and its images the weights of another can only fit where it is the same.
_OF_THE_NETWORK = ("arch", "num_features", "pooling", "stripes")


def start_from_run(weights: Path, stage: str, settings: Settings, resolved: Resolved) -> Settings:
    """Give ``settings`` with a stage that begins from ``weights``, a file of a run.

    The network and the size of its images are the run's.
    Raises UsageError where the user's settings contradict the run.
    """
    run = open_run(weights.parent)
    began = config.load_run(run.path / "settings.yaml", sections=(f"{run.stage}.model", "image"))
    whose = f"{run.stage} run {run.path}"
    model = began.of(run.stage).model.model_copy(update={"weights": str(weights)})
    return _like_another(settings, stage, model, began.image, resolved, whose)


def _like_another(
    settings: Settings,
    stage: str,
    model: ModelSettings,
    image: ImageSettings,
    resolved: Resolved,
    whose: str,
) -> Settings:
    """Do as ``_with_network``, and begin from the weights of ``model``.

    Raises UsageError where the user's settings contradict the other's.
    """
    settings = _with_network(settings, stage, model, image, resolved)
    own = settings.of(stage).model
    asked = {f"{stage}.model.{key}": (getattr(own, key), getattr(model, key)) for key in _OF_THE_NETWORK}
    for key in ("height", "width"):
        asked[f"image.{key}"] = getattr(settings.image, key), getattr(image, key)
    against = [
        f"  - {key}: {now!r} asked for, {then!r} there" for key, (now, then) in asked.items() if now != then
    ]
    if against:
        raise UsageError(
            f"The network of the {whose} is another than is asked for:\n"
            + "\n".join(against)
            + "\nLeave these settings out, or take other weights (--init imagenet, none or a file)."
        )
    return _with_model(settings, stage, own.model_copy(update={"weights": model.weights}))


def find_local(local: Path | None, runs_root: Path, dataset: str) -> Path:
    """Give the file of local labels: of a cam run, a file as such, or of the newest cam run.

    Raises RunError where there is none.
    """
    if local is None:
        return newest(runs_root, dataset, "cam", file="labels/local.csv").labels / "local.csv"
    if local.is_file():
        return local
    if not local.exists():
        raise RunError(
            f"--local {local}: that is not there. It takes a cam run, a label file, or tracks. To train "
            "without local labels, leave it out and take refiners that use none (--refine none)."
        )
    run = open_run(local)
    path = run.labels / "local.csv"
    if run.stage != "cam":
        raise RunError(
            f"{run.path} is a run of the {run.stage} stage; --local takes a cam run, or a label file."
        )
    if not path.is_file():
        raise RunError(f"The run {local} has no labels/local.csv: it is not finished. Go on with --resume.")
    return path


def find_cam_weights(local: Path) -> Path:
    """Give the weights of the shared network of the cam run that ``local`` belongs to.

    Raises RunError where that run trained a network per camera, or none.
    """
    path = (run_of(local) or open_run(local)).path / "last.safetensors"
    if not path.is_file():
        raise RunError(
            f"--init cam needs the shared network of a cam run, and there is no {path}. "
            "Train it with: icsr train cam --network shared; or take --init imagenet, none or a file."
        )
    return path
