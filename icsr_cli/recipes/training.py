"""From a prepared data set to a finished run: opens what a stage needs, and minds the run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from icsr_cli.config.schema import Settings
from icsr_cli.errors import IcsrError, Interrupted, RunError, TrainingError, UsageError
from icsr_cli.models import Network
from icsr_cli.progress import Progress, SilentProgress
from icsr_cli.recipes.cam_stage import CamStage, train_cam_stage
from icsr_cli.recipes.distributed import ALONE, Ranks, SharedInterruption
from icsr_cli.recipes.evaluation import Evaluation, evaluate, load_pixels
from icsr_cli.recipes.global_stage import GlobalStage, train_global_stage
from icsr_cli.recipes.interruption import interruptible
from icsr_cli.recipes.steps import Engine, choose_engine
from icsr_cli.runs import LabelTable, LoggedProgress, RunFolder, align_local, newest, open_run, read_labels
from icsr_cli.runs.environment import describe
from icsr_cli.types import Dataset, IntArray


@dataclass(frozen=True)
class Workplace:
    """Where the data lie, what computes, who is told, and which of the training processes this is."""

    data_root: Path
    device: str | None
    progress: Progress
    ranks: Ranks = ALONE


def run_cam_stage(
    dataset: Dataset,
    settings: Settings,
    run: RunFolder,
    workplace: Workplace,
    *,
    cameras: Sequence[int] | None = None,
) -> LabelTable:
    """Train the cam stage into ``run`` and give the local labels.

    Raises:
        UsageError: where a camera of ``cameras`` is not in the data set.
    """
    there = sorted(set(dataset.train.cameras.tolist()))
    unknown = sorted(set(cameras or ()) - set(there))
    if unknown:
        raise UsageError(f"The data set {dataset.name!r} has no camera {unknown}; it has {there}.")
    # Ranks with cameras of their own walk at their own pace; only a network they share stops them together.
    together = settings.cam.network == "shared"
    with _recorded(run, settings, workplace, together=together) as (engine, progress, check):
        stage = CamStage(
            dataset.train,
            _training_pixels(dataset, settings, workplace.data_root, engine, progress),
            settings,
            run,
            engine,
            progress,
            check,
            workplace.ranks,
        )
        return train_cam_stage(stage, cameras)


def run_global_stage(
    dataset: Dataset, settings: Settings, run: RunFolder, workplace: Workplace, *, local: Path | None
) -> Network:
    """Train the global stage into ``run``, refined by the label table ``local``, and give the network."""
    labels = None if local is None else read_local(local, dataset)
    with _recorded(run, settings, workplace, together=True) as (engine, progress, check):
        if labels is not None and (labels < 0).any():
            progress.note(f"{int((labels < 0).sum()):,} training images have no local label.")
        stage = GlobalStage(
            dataset.train,
            _training_pixels(dataset, settings, workplace.data_root, engine, progress),
            labels,
            settings,
            run,
            engine,
            progress,
            check,
            lambda network: measure(network, dataset, settings, workplace, engine).plain.mAP,
            workplace.ranks,
        )
        return train_global_stage(stage)


def measure(
    network: Network, dataset: Dataset, settings: Settings, workplace: Workplace, engine: Engine
) -> Evaluation:
    """Rank the test people of ``dataset`` by ``network``, which is on the device of ``engine``."""
    return evaluate(
        network,
        dataset,
        settings.image,
        settings.evaluation,
        folder=workplace.data_root,
        engine=engine,
        progress=workplace.progress,
    )


def find_local(local: Path | None, runs_root: Path, dataset: str) -> Path:
    """Give the file of local labels: of a cam run, a file as such, or of the newest cam run.

    Raises:
        RunError: where there is none.
    """
    if local is None:
        return newest(runs_root, dataset, "cam", file="labels/local.csv").labels / "local.csv"
    if local.is_file():
        return local
    path = open_run(local).labels / "local.csv"
    if not path.is_file():
        raise RunError(f"The run {local} has no labels/local.csv: it is not finished. Go on with --resume.")
    return path


def find_cam_weights(local: Path) -> Path:
    """Give the weights of the shared network of the cam run that ``local`` belongs to.

    Raises:
        RunError: where that run trained a network per camera, or none.
    """
    path = open_run(local).path / "last.safetensors"
    if not path.is_file():
        raise RunError(
            f"--init cam needs the shared network of a cam run, and there is no {path}. "
            "Train it with: icsr train cam --network shared; or take --init imagenet, none or a file."
        )
    return path


def start_from_cam(settings: Settings, local: Path) -> Settings:
    """Name the file of the shared network that ``local`` came with as the weights of the global stage.

    Raises:
        RunError: where there is no such network.
    """
    own = settings.global_
    model = own.model.model_copy(update={"weights": str(find_cam_weights(local))})
    return settings.model_copy(update={"global_": own.model_copy(update={"model": model})})


def read_local(path: Path, dataset: Dataset) -> IntArray:
    """Read local labels in the order of the training images."""
    return align_local(read_labels(path), dataset.train, path)


def _training_pixels(
    dataset: Dataset, settings: Settings, data_root: Path, engine: Engine, progress: Progress
) -> Tensor:
    return load_pixels(dataset, dataset.train, "train", settings.image, data_root, engine, progress)


@contextmanager
def _recorded(
    run: RunFolder, settings: Settings, workplace: Workplace, *, together: bool
) -> Iterator[tuple[Engine, Progress, Callable[[], None]]]:
    """Write down what the run is made of, and how it ended; gives what asks for a signal.

    ``together``: the ranks walk step by step beside each other, and stop at the same one.
    """
    ranks = workplace.ranks
    engine = choose_engine(workplace.device, settings.precision)
    if ranks.leads:
        run.write_settings(settings.dump())
        computes = {"device": str(engine.device), "precision": engine.precision, "processes": ranks.size}
        run.write_environment(describe() | computes)
        run.update_info(status="running")
    progress: Progress = LoggedProgress(run, workplace.progress)
    if not ranks.leads and together:
        progress = SilentProgress()  # it would say everything once more
    try:
        with interruptible() as interruption:
            shared = together and ranks.size > 1
            yield engine, progress, SharedInterruption(interruption).check if shared else interruption.check
    except (Interrupted, KeyboardInterrupt) as error:
        if not ranks.leads:
            raise SystemExit(getattr(error, "exit_code", 130)) from None
        run.update_info(status="interrupted")
        raise
    except TrainingError as error:
        if together and not ranks.leads:  # all ranks have come to the same, and one says it
            raise SystemExit(error.exit_code) from None
        _note_failure(run, error)
        raise
    except (IcsrError, RuntimeError, OSError, MemoryError) as error:
        _note_failure(run, error)
        raise
    if ranks.leads:
        run.finish()


def _note_failure(run: RunFolder, error: Exception) -> None:
    """Write the reason down where there is room for it; a full disk must not hide the first fault."""
    try:
        run.update_info(status="failed", reason=str(error))
    except OSError:
        return


#: What a run may go on with otherwise than it began: it changes the memory needed, not what is learnt.
MAY_CHANGE = {"evaluation.batch_size"}


def check_same_settings(run: RunFolder, asked: dict[str, Any]) -> None:
    """Refuse to resume a run with other settings than it was started with.

    Raises:
        UsageError: listing each difference.
    """
    # Through the schema: a setting that is younger than the run has its default there.
    before, now = dict(_flat(Settings.model_validate(run.settings()).dump())), dict(_flat(asked))
    different = [
        f"  - {key}: {before.get(key, 'not set')!r} in the run, {now.get(key, 'not set')!r} asked for"
        for key in sorted((before.keys() | now.keys()) - MAY_CHANGE)
        if before.get(key) != now.get(key)
    ]
    if different:
        raise UsageError(
            f"The run {run.path} was started with other settings; it goes on as it began or not at all:\n"
            + "\n".join(different)
            + "\nLeave these options out, or start a new run without --resume."
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
