"""What both stages are made of: the place they work at, and a network in training."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from icsr_cli.config.schema import Settings, StageSettings
from icsr_cli.errors import RunError, reason
from icsr_cli.images.augment import Augmentation
from icsr_cli.models import Network, save_weights
from icsr_cli.models.batch_norm import group_batch_norm
from icsr_cli.pixels import Stored
from icsr_cli.progress import Progress, Watch, unwatched
from icsr_cli.recipes.blocks import trained_parameters
from icsr_cli.recipes.camera_features import extract_by_camera
from icsr_cli.recipes.distributed import ALONE, Ranks, extract_together
from icsr_cli.recipes.recorded import Recorded
from icsr_cli.recipes.spare_memory import check_parts, spare_memory
from icsr_cli.recipes.steps import Batch, Engine, Memory, build_network, seed_of, train_epoch
from icsr_cli.runs import RunFolder
from icsr_cli.types import IMAGENET, IntArray, Pairs, PixelNorm, Split


@dataclass(frozen=True)
class Stage:
    """What a stage walks through: data, settings, where to write, whom to tell.

    ``local`` int64 (n,) numbers the local clusters camera by camera, -1 for none; None where there are none.
    ``pairs``: what is known of pairs of the images, None where nobody has said anything.
    ``score`` gives the mAP on the test set, for those who chose to look at it. ``watch`` times the parts of
    the work.
    """

    split: Split
    pixels: Stored
    settings: Settings
    run: RunFolder
    engine: Engine
    progress: Progress
    check: Callable[[], None] = field(default=lambda: None)
    ranks: Ranks = ALONE
    local: IntArray | None = None
    score: Callable[[Network], float] | None = None
    watch: Watch = unwatched
    pairs: Pairs | None = None


@contextmanager
def own_dice(seed: int, device: torch.device) -> Iterator[None]:
    """Let what a network throws dice for (stochastic depth), with torch's own generators, follow ``seed``."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class Trainer:
    """A network in training, with its optimiser and schedule: embeds, trains an epoch, saves, is restored.

    ``own``: the settings of its stage. ``seed``: of its random weights. ``state``: what ``state`` gave when
    the run was interrupted; the weights it began from may be gone by now.
    """

    #: The parts of a state.
    STATE: ClassVar = ("network", "optimizer", "schedule")

    def __init__(self, stage: Stage, own: StageSettings, seed: int, state: dict[str, Any] | None) -> None:
        self.stage, self.own = stage, own
        model = own.model if state is None else own.model.model_copy(update={"weights": "none"})
        image = stage.settings.image
        self.network = build_network(model, seed, stage.engine, image.size)
        trained = trained_parameters(self.network, own.epochs)
        self.optimizer, self.schedule = own.optimizer.module.build(trained, own.optimizer)
        if state is not None:
            self._restore(state)
        self.trainee = self._trainee()
        change, norm = dict(own.augmentation), self.network.norm
        self.augmentation = Augmentation(image.height, image.width, **change, norm=norm)
        self.seconds: dict[str, float] = {}

    def _restore(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` gave."""
        # The norm belongs to the weights it began from; runs from before there was a choice had ImageNet's.
        self.network.norm = PixelNorm(*state["norm"]) if "norm" in state else IMAGENET
        try:
            for part in self.STATE:
                getattr(self, part).load_state_dict(state[part])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"A checkpoint in {self.stage.run.path} is of another network or optimiser "
                f"({reason(error)}). Remove it to start anew."
            ) from None

    def _trainee(self) -> nn.Module:
        """Give the form that is trained, with the same weights: spread over the ranks, compiled, or recorded.

        What computes something twice, on the way back, is not recorded, nor what talks to other processes.
        """
        settings, ranks, engine = self.stage.settings, self.stage.ranks, self.stage.engine
        check_parts(self.network.base, self.own, processes=ranks.size, sync_bn=settings.sync_bn)
        if self.own.bn_group:
            group_batch_norm(self.network, self.own.bn_group)
            if not settings.sync_bn:
                _say_what_groups_are(self.own, ranks.size, self.stage.progress)
        spread = ranks.wrap(self.network, sync_bn=settings.sync_bn)
        spare_memory(self.network.base, self.own)
        if settings.compile:
            return cast("nn.Module", torch.compile(spread))
        recorded = engine.device.type == "cuda" and settings.cuda_graph and ranks.size == 1
        if recorded and not self.own.spares_memory:
            return Recorded(spread, self.stage.progress.note)
        return spread

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Note the seconds of a part of the epoch."""
        started = time.perf_counter()
        with self.stage.watch(part):
            yield
        self.seconds[part] = time.perf_counter() - started

    def embed(self, rows: IntArray, title: str) -> Tensor:
        """Embed the images at ``rows`` (n,): float32 (n, d) on the device, on every rank."""
        with self._embedding("extraction", f"{title} features", len(rows)) as embed:
            return embed(rows, self.stage.settings.evaluation.batch_size)

    def embed_by_camera(self, seed: int, title: str) -> Tensor:
        """Embed all images, BatchNorm by the statistics of their camera: float32 (n, d), on every rank."""
        cameras = self.stage.split.cameras
        with self._embedding("extraction by camera", f"{title} features by camera", len(cameras)) as embed:
            return extract_by_camera(self.network, cameras, seed, embed)

    @contextmanager
    def _embedding(self, part: str, title: str, images: int) -> Iterator[Callable[[IntArray, int], Tensor]]:
        """Give what embeds images at (n,) in batches of a size; it is timed as ``part``."""
        stage = self.stage
        with self.timed(part), stage.progress.task(title, images, "img") as task:
            how: dict[str, Any] = {"device": stage.engine.device, "precision": stage.engine.precision}
            how |= {"task": task, "watch": stage.watch}
            yield lambda rows, batch_size: extract_together(
                self.network, stage.pixels, rows, stage.ranks, batch_size=batch_size, **how
            )

    def train(self, batches: Iterable[Batch], memories: Sequence[Memory], seed: int, title: str) -> float:
        """Train an epoch and give its mean loss; the schedule moves on.

        Raises:
            TrainingError: where the loss or the features are not finite.
            Interrupted: on a signal.
        """
        stage = self.stage
        with (
            self.timed("training"),
            own_dice(seed_of(seed, stage.ranks.rank), stage.engine.device),
            stage.progress.task(title, self.own.iters, "step") as task,
        ):
            loss = train_epoch(
                self.trainee,
                self.optimizer,
                stage.pixels,
                batches,
                memories,
                self.augmentation,
                torch.Generator(stage.engine.device).manual_seed(seed),
                engine=stage.engine,
                task=task,
                check=stage.check,
                ranks=stage.ranks,
                watch=stage.watch,
                clip=self.own.clip,
            )
            if isinstance(self.trainee, Recorded):
                self.trainee.forget()
        self.schedule.step()
        return loss

    def state(self) -> dict[str, Any]:
        """Give what a resumed run needs."""
        parts = {part: getattr(self, part).state_dict() for part in self.STATE}
        return {**parts, "norm": (self.network.norm.mean, self.network.norm.std)}

    def save(self, name: str) -> None:
        """Write the weights into the run folder, with the size of the images they were trained at."""
        image = self.stage.settings.image
        size = {"height": str(image.height), "width": str(image.width)}
        save_weights(self.network, self.stage.run.path / f"{name}.safetensors", size)


def _say_what_groups_are(own: StageSettings, processes: int, progress: Progress) -> None:
    """Say it where groups, which lie within a process, do not divide its images and so are others."""
    share, asked = own.batch_size / processes, own.bn_group
    if processes > 1 and share % asked:
        progress.note(
            f"BatchNorm takes groups of about {share / max(1, round(share / asked)):.0f} images, not {asked} "
            f"as bn_group says: {processes} processes have {own.batch_size} between them."
        )
