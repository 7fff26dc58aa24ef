"""What a run starts from: its folder, settings, local labels and weights, found before anything is computed.

For the command line, the demo and the benchmarks alike.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from icsr_cli.choices import chosen
from icsr_cli.config.schema import Settings
from icsr_cli.errors import RunError, UsageError, some
from icsr_cli.files import write_bytes
from icsr_cli.models import faults, read_metadata, size_of
from icsr_cli.progress import Progress
from icsr_cli.recipes.evaluation import weights_of
from icsr_cli.recipes.inheriting import like_another, start_from_run
from icsr_cli.recipes.resuming import like_others
from icsr_cli.recipes.spare_memory import check_parts
from icsr_cli.recipes.steps import Engine, build_network
from icsr_cli.recipes.wish import (
    Resolved,
    Wish,
    find_cam_weights,
    find_local,
    images_of,
    pairs_of,
    resolve,
    use_local,
    uses_local,
)
from icsr_cli.runs import RunFolder, open_run
from icsr_cli.runs.labels import align_local, read_labels
from icsr_cli.runs.pairs import about_pairs, keep_pairs, say_pairs
from icsr_cli.runs.places import begin
from icsr_cli.types import Dataset

#: Weights that are no file and no run, whatever a folder beside us is called.
_WORDS = ("imagenet", "pretrained", "none", "cam")


def start(data: Dataset, stage: str, wish: Wish, progress: Progress) -> tuple[RunFolder, Settings]:
    """Make the folder of a new run; every fault is found before.

    Raises:
        UsageError: settings that do not fit, or that contradict the network of the cam run.
        RunError: local labels or a cam network are needed and not there, or damaged; a run of that name is
            there.
        ModelError, InputError: the network cannot be built, or its weights not be had.
    """
    if "group" in wish.facts:
        wish = like_others(data, stage, wish, wish.facts["group"])
        if wish.then is not None:  # now, not when the cam stage is trained
            after = wish.runs_root / data.name / stage / str(wish.name)
            like_others(data, "global", replace(wish.then, after=after), wish.facts["group"])
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
    pairs = pairs_of(wish, data)
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
        settings = like_another(settings, stage, model, cam.image, resolved, whose)
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
