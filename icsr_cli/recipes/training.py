"""From a prepared data set and an open run to a finished one: minds the run folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from icsr_cli.config.schema import Settings
from icsr_cli.errors import Interrupted, TrainingError
from icsr_cli.models import Network
from icsr_cli.progress import Progress
from icsr_cli.recipes.cam_stage import train_cam_stage
from icsr_cli.recipes.distributed import ALONE, Ranks, SharedInterruption
from icsr_cli.recipes.evaluation import Embedder, Evaluation, evaluate, load_pixels
from icsr_cli.recipes.global_stage import train_global_stage
from icsr_cli.recipes.interruption import interruptible
from icsr_cli.recipes.steps import choose_engine, repeatable
from icsr_cli.recipes.trainer import Stage
from icsr_cli.runs import LabelTable, LoggedProgress, RunFolder, align_local, read_labels
from icsr_cli.runs.environment import describe
from icsr_cli.runs.lock import training_lock
from icsr_cli.runs.pairs import kept_pairs
from icsr_cli.types import Dataset, Split


@dataclass(frozen=True)
class Workplace:
    """Where the data lie, what computes, who is told, and which of the training processes this is."""

    data_root: Path
    device: str | None
    progress: Progress
    ranks: Ranks = ALONE


def run_cam_stage(dataset: Dataset, settings: Settings, run: RunFolder, workplace: Workplace) -> LabelTable:
    """Train the cam stage into ``run``, on the cameras that it names or on all; gives the local labels."""
    # Ranks with cameras of their own walk at their own pace; only a network they share stops them together.
    together = settings.cam.network == "shared"
    with _opened(dataset, settings, run, workplace, together=together) as stage:
        return train_cam_stage(stage, run.info().get("cameras"))


def run_global_stage(dataset: Dataset, settings: Settings, run: RunFolder, workplace: Workplace) -> Network:
    """Train the global stage into ``run``, with the local labels it was given if any; gives the network."""
    local = run.local
    table = None if local is None else read_labels(local)
    labels = None if table is None or local is None else align_local(table, dataset.train, local)

    def score(network: Network) -> float:
        return measure(network, dataset, settings, workplace).plain.mAP

    with _opened(dataset, settings, run, workplace, together=True) as stage:
        if labels is not None and (labels < 0).any():
            stage.progress.note(f"{int((labels < 0).sum()):,} training images have no local label.")
        if table is not None:
            _warn_of_others(stage.progress, run.info()["local"], {*table.paths}, dataset.train)
        return train_global_stage(replace(stage, local=labels, score=score))


def _warn_of_others(progress: Progress, source: str, labelled: set[str], split: Split) -> None:
    trained = {record.path for record in split.records}
    if unknown := labelled - trained:
        progress.warn(f"{len(unknown):,} images of {source} are no training images, such as {min(unknown)}.")
    if missing := trained - labelled:
        progress.warn(
            f"{source} lacks {len(missing):,} of the {len(trained):,} training images, such as "
            f"{min(missing)}: they have no local label."
        )


def measure(network: Network, dataset: Dataset, settings: Settings, workplace: Workplace) -> Evaluation:
    """Rank the test people of ``dataset`` by ``network``."""
    engine = choose_engine(workplace.device, settings.precision)
    place = (workplace.data_root, engine, workplace.progress)
    network = network.to(engine.device)
    return evaluate(Embedder(network, dataset, settings.image, settings.evaluation, *place))


@contextmanager
def _opened(
    dataset: Dataset, settings: Settings, run: RunFolder, workplace: Workplace, *, together: bool
) -> Iterator[Stage]:
    """Open what a stage works on; write down what the run is made of, and how it ended.

    A new run that cannot begin leaves no folder: there is nothing in it to go on with.
    ``together``: the ranks walk step by step beside each other, and stop at the same one.
    """
    ranks = workplace.ranks
    with ExitStack() as held:
        ranks.from_leader(lambda: held.enter_context(training_lock(run.path)))
        began = (run.path / "environment.json").exists()  # before, and goes on now
        progress: Progress = LoggedProgress(run, workplace.progress)
        if not ranks.leads and together:
            progress = Progress()  # it would say everything once more
        try:
            engine = choose_engine(workplace.device, settings.precision)
            held.enter_context(repeatable(engine.device))
            if ranks.leads:
                run.write_settings(settings.dump(run.stage))
                where = {"device": str(engine.device), "precision": engine.precision, "processes": ranks.size}
                first = {key: said for key, said in run.environment().items() if key == "command"}
                run.write_environment(describe() | where | first)
                run.update_info(status="running", reason="")
            with interruptible() as interruption:
                shared = together and ranks.size > 1
                check = SharedInterruption(interruption).check if shared else interruption.check
                place = workplace.data_root, engine, progress
                pixels = load_pixels(dataset, "train", settings.image, *place)
                pairs = kept_pairs(run.path, dataset.train.paths, run.info().get("pairs"))
                began = True
                yield Stage(dataset.train, pixels, settings, run, engine, progress, check, ranks, pairs=pairs)
        except (Interrupted, KeyboardInterrupt) as error:
            if not ranks.leads:
                ranks.follow(getattr(error, "exit_code", 130))
            run.update_info(status="interrupted")
            raise
        except TrainingError as error:
            if together and not ranks.leads:  # all ranks have come to the same, and one says it
                ranks.follow(error.exit_code)
            _note_failure(run, error)
            raise
        except (Exception, SystemExit) as error:  # whatever it is, the run is not running any more
            if ranks.leads and not began:
                run.remove()
            elif ranks.leads or not isinstance(error, SystemExit):
                _note_failure(run, error)
            raise
        if ranks.leads:
            run.finish()


def _note_failure(run: RunFolder, error: BaseException) -> None:
    """Write the reason down where there is room for it; a full disk must not hide the first fault."""
    with suppress(OSError):
        run.update_info(status="failed", reason=str(error))
