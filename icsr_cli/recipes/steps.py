"""The training loop: batches of images -> augmented -> features -> loss -> one step of the optimiser."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from icsr_cli.choices import Options
from icsr_cli.config.schema import ModelSettings, StageSettings
from icsr_cli.errors import TrainingError, UsageError, counted, reason
from icsr_cli.features import extract
from icsr_cli.images.augment import Augmentation
from icsr_cli.models import Network, build
from icsr_cli.models.network import unwrapped
from icsr_cli.pixels import Stored, upcoming, upload
from icsr_cli.progress import Figure, Task, Watch, unwatched
from icsr_cli.recipes.distributed import ALONE, Ranks
from icsr_cli.runs import RunFolder
from icsr_cli.threads import usable_cpus
from icsr_cli.types import Epoch, IntArray, Size


class Memory(Protocol):
    """What pulls features to their clusters: a file in ``icsr_cli/memories``."""

    def loss(self, features: Tensor, images: Tensor) -> Tensor:
        """Loss of float features (b, d) of the epoch's ``images``, int64 (b,) on the host."""

    def update(self, features: Tensor, images: Tensor) -> None:
        """Learn float features (b, d) of these images, int64 (b,)."""


@dataclass(frozen=True)
class WeightedSum:
    """Several memories of one epoch; their losses are added by weight."""

    memories: Sequence[Memory]
    weights: Sequence[float]

    def loss(self, features: Tensor, images: Tensor) -> Tensor:
        """Weighted sum of the losses of float features (b, d) of ``images``, int64 (b,)."""
        losses = [memory.loss(features, images) for memory in self.memories]
        return torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=True)]).sum()

    def update(self, features: Tensor, images: Tensor) -> None:
        """Update each."""
        for memory in self.memories:
            memory.update(features, images)


def build_memory(epoch: Epoch, chosen: Sequence[Options]) -> Memory:
    """Build the memory, or the memories, that the settings name."""
    memories: list[Memory] = [options.module.Memory(epoch, options) for options in chosen]
    weights = [float(getattr(options, "weight", 1.0)) for options in chosen]
    return memories[0] if weights == [1.0] else WeightedSum(memories, weights)


def draw_batches(
    own: StageSettings, epoch: Epoch, iters: int, generator: np.random.Generator, shares: int = 1
) -> IntArray:
    """Draw ``iters`` batches, or one of ``shares`` of each, by a stage's sampler: int64 (iters, b)."""
    sizes = {"batch_size": own.batch_size // shares, "num_instances": own.num_instances, "iters": iters}
    drawn: IntArray = own.sampler.module.batches(epoch, own.sampler, generator=generator, **sizes)
    return drawn


@dataclass(frozen=True)
class Part:
    """Images of one batch that are compared with one memory.

    ``rows`` (b,): where their pixels are; ``images`` (b,): their numbers in the memory's epoch.
    """

    memory: int
    rows: IntArray
    images: IntArray


Batch = Sequence[Part]

#: BatchNorm after the pooling needs two images. A smaller batch is not split: every rank computes it whole.
FEWEST_IMAGES_OF_A_RANK = 2


@dataclass(frozen=True)
class Engine:
    """Where and how the network computes."""

    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in bfloat16 where that was asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def extract(self, network: nn.Module, pixels: Any, rows: Any = None, **how: Any) -> Tensor:
        """Embed images as ``features.extract`` does, here."""
        return extract(network, pixels, rows, device=self.device, precision=self.precision, **how)


def choose_engine(device: str | None, precision: str | None, run: RunFolder | None = None) -> Engine:
    """Take ``device``, else the first GPU, else the CPU; ``auto`` is bf16 on a GPU that has it.

    ``precision`` None: that of ``run``, whose network is looked at, or ``auto``.
    Raises UsageError where the device does not exist.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, and ``repeatable`` needs it
    if "OMP_NUM_THREADS" not in os.environ:  # torch counts the cores of the machine, not a container's share
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))
    try:
        chosen = torch.device(name)
        if chosen.type == "meta":
            raise RuntimeError("it holds no numbers")
        # With its number: tensors are on cuda:0, and what compares devices finds that it is not cuda.
        chosen = torch.empty(1, device=chosen).device
    except (RuntimeError, AssertionError) as error:
        unknown = str(error).startswith("Expected one of")  # of all that PyTorch has ever heard of
        why = "it takes cpu, cuda, or cuda:1 for the second GPU" if unknown else reason(error)
        gpus = counted(torch.cuda.device_count(), "GPU")
        raise UsageError(f"The device {name!r} cannot be used: {why}. There are {gpus} here.") from None
    if precision is None:
        precision = "auto" if run is None else run.precision
    if precision == "auto":
        precision = "bf16" if chosen.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return Engine(chosen, precision)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let a GPU compute the same bits each time, as a CPU does: what adds in any order waits for its turn.

    What torch can compute in one way only, which is not repeatable, it warns of.
    """
    if device.type != "cuda":
        yield
        return
    fills: Any = torch.utils.deterministic
    on, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = fills.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    fills.fill_uninitialized_memory = False  # nobody reads what has not been written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(on, warn_only=warns)
        fills.fill_uninitialized_memory = filled


def seed_of(*words: int) -> int:
    """Give one 63-bit seed for a place in the schedule.

    Every random choice of an epoch comes from (seed, stage, camera, epoch), so a resumed run needs no saved
    generator to make the choices of an uninterrupted one.
    """
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def build_network(settings: ModelSettings, seed: int, engine: Engine, size: Size = (256, 128)) -> Network:
    """Build the network for images of ``size`` on the device; random weights come from ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(**dict(settings), size=size)
    # Pixels lie channels-last in the store and stay so through every convolution, on either device.
    return network.to(engine.device).to(memory_format=torch.channels_last)


def train_epoch(
    network: nn.Module,
    optimizer: Optimizer,
    pixels: Stored,
    batches: Iterable[Batch],
    memories: Sequence[Memory],
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    engine: Engine,
    task: Task,
    check: Callable[[], None],
    ranks: Ranks = ALONE,
    watch: Watch = unwatched,
    clip: float = 0.0,
) -> float:
    """Train on ``batches`` and give the mean loss.

    ``pixels`` uint8 (n, h, w, 3), on the device or on the host. The loss of a batch is the mean over its
    parts. ``check`` is called after every step and may raise. With several ``ranks``, ``network`` is what
    ``ranks.wrap`` gave; all ranks are given the same batches and random numbers, and each takes its share.
    After the epoch all have the running statistics of the leading rank. ``watch`` times the parts. ``clip``:
    the longest gradient, by the norm over all parameters; 0 for any.

    Raises:
        TrainingError: where the loss or the features are not finite; the last epoch's checkpoint is
            untouched.
    """

    def step(batch: Batch, fetched: Callable[[], Tensor]) -> Tensor:
        """Take one step; give the loss of the whole batch, which is the same on every rank."""
        sharing = _sharing(batch, ranks)
        count = sum(len(part.rows) for part in batch)
        shares = sharing.shares(count)
        own = shares[sharing.rank]
        with engine.autocast():
            with watch("pixels, training"):
                # The dice of the whole batch are thrown everywhere: an image's fate is not that of its rank.
                dice = augmentation.draw(count, generator)[own]
                images = augmentation.apply(upload(fetched(), engine.device), dice)
            with watch("forward"):
                found = network(images)
        with watch("loss"):
            features = sharing.gather_for_loss(found.float(), shares)
            parts = torch.split(features, [len(part.rows) for part in batch])
            # Numbers of images stay on the host: the memory plans there, without waiting for the device.
            asked = [
                (memories[part.memory], compared, torch.from_numpy(part.images))
                for part, compared in zip(batch, parts, strict=True)
            ]
            loss = torch.stack([memory.loss(compared, number) for memory, compared, number in asked]).mean()
        with watch("backward"):
            optimizer.zero_grad(set_to_none=True)
            # Gradients are the mean over the ranks, and what is wanted is the sum of their shares.
            (loss * sharing.size).backward()  # type: ignore[no-untyped-call]
        with watch("optimiser"):
            if clip:
                trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                clip_grad_norm_(trained, clip)
            optimizer.step()
        with watch("memory update"):
            for memory, compared, number in asked:
                memory.update(compared.detach(), number)
        return loss.detach()

    network.train()
    total = torch.zeros((), device=engine.device)
    steps, images, started = 0, 0, time.perf_counter()

    def live() -> dict[str, Figure]:
        return {"loss": float(total) / steps, "img/s": int(images / (time.perf_counter() - started))}

    with closing(upcoming(pixels, batches, lambda batch: _own_rows(batch, ranks))) as queue:
        for batch, fetched in queue:
            total += step(batch, fetched)
            steps += 1
            images += sum(len(part.rows) for part in batch)
            task.advance()
            task.show(live)
            check()
    mean = float(total) / max(steps, 1)
    inside = unwrapped(network)  # what is spread over ranks or compiled shares its weights
    ranks.align_buffers(inside)
    if steps:
        _require_finite(mean, inside, pixels, batch, engine, steps)
    return mean


def _require_finite(
    loss: float, network: nn.Module, pixels: Stored, batch: Batch, engine: Engine, steps: int
) -> None:
    """Raise where the loss, or what the network says after its last step, is not finite.

    The last loss was computed before the last step: without a look at the network a step that broke it
    would be saved as the last good state.
    """
    rows = batch[0].rows[:8]
    features = engine.extract(network, pixels, rows)
    if not (np.isfinite(loss) and bool(features.isfinite().all())):
        raise TrainingError(
            f"The loss is {loss} after {steps} steps, and the network has come to numbers that are not "
            "finite. Finished epochs, if any, are saved, but --resume would lead here again: start a new "
            "run with a smaller learning rate (--lr), or with --precision fp32."
        )


def _sharing(batch: Batch, ranks: Ranks) -> Ranks:
    """Give who shares a batch: the ranks, or nobody where it is too small, and each computes it whole."""
    return ranks if sum(len(part.rows) for part in batch) >= FEWEST_IMAGES_OF_A_RANK * ranks.size else ALONE


def _own_rows(batch: Batch, ranks: Ranks) -> IntArray:
    """Give the rows of a batch whose pixels this rank computes."""
    rows = np.concatenate([part.rows for part in batch])
    ranks = _sharing(batch, ranks)
    return rows[ranks.shares(len(rows))[ranks.rank]]
