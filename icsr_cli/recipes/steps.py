"""The steps both stages are made of: a network, its features, an epoch of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from icsr_cli.config.schema import AugmentationSettings, ModelSettings, OptimizerSettings, Settings
from icsr_cli.errors import TrainingError, UsageError
from icsr_cli.features import extract
from icsr_cli.images.augment import Augmentation
from icsr_cli.memory import ClusterMemory, centroids_of
from icsr_cli.models import Network, build
from icsr_cli.progress import Task
from icsr_cli.recipes.distributed import ALONE, Ranks
from icsr_cli.types import IntArray

Generator = np.random.Generator


@dataclass(frozen=True)
class Part:
    """Images of one batch that are compared with one memory: row numbers and their clusters, (b,)."""

    memory: int
    rows: IntArray
    targets: IntArray


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


def choose_engine(device: str | None, precision: str) -> Engine:
    """Take ``device``, else the first GPU, else the CPU; ``auto`` is bf16 on a GPU that has it.

    Raises:
        UsageError: where the device does not exist.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        gpus = torch.cuda.device_count()
        reason = str(error).splitlines()[0]
        raise UsageError(f"The device {name!r} cannot be used: {reason}. There are {gpus} GPUs.") from None
    if precision == "auto":
        precision = "bf16" if chosen.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return Engine(chosen, precision)


def seed_of(*words: int) -> int:
    """Give one 63-bit seed for a place in the schedule.

    Every random choice of an epoch comes from (seed, stage, camera, epoch), so a resumed run needs no saved
    generator to make the choices of an uninterrupted one.
    """
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def build_network(settings: ModelSettings, seed: int, engine: Engine) -> Network:
    """Build the network on the device; random weights come from ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(
            settings.arch,
            num_features=settings.num_features,
            pooling=settings.pooling,
            stripes=settings.stripes,
            weights=settings.weights,
        )
    # Pixels lie channels-last in the store and stay so through every convolution, on either device.
    return network.to(engine.device).to(memory_format=torch.channels_last)


def build_trainee(network: Network, settings: Settings, ranks: Ranks) -> nn.Module:
    """Give the form of ``network`` that is trained: spread over the ranks, compiled if that was chosen.

    It shares its weights with ``network``, which embeds and is saved.
    """
    spread = ranks.wrap(network, sync_bn=settings.sync_bn)
    if not settings.compile:
        return spread
    return cast("nn.Module", torch.compile(spread))


def build_optimizer(network: Network, settings: OptimizerSettings) -> tuple[Adam, StepLR]:
    """Adam over what is not frozen, and its step schedule (one step per epoch)."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = Adam(trained, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    return optimizer, StepLR(optimizer, settings.step_size, settings.gamma)


def build_augmentation(settings: Settings, augmentation: AugmentationSettings) -> Augmentation:
    """Random changes at the size of the images."""
    return Augmentation(
        settings.image.height,
        settings.image.width,
        flip=augmentation.flip,
        pad=augmentation.pad,
        border=augmentation.border,
        erase=augmentation.erase,
    )


def build_memory(
    features: Tensor, labels: IntArray, temperature: float, momentum: float, hard: bool
) -> ClusterMemory:
    """One centroid per cluster of ``labels`` (n,), from ``features`` (n, d)."""
    centroids = centroids_of(features, torch.from_numpy(labels).to(features.device))
    return ClusterMemory(centroids, temperature=temperature, momentum=momentum, hard=hard)


def train_epoch(
    network: nn.Module,
    optimizer: Optimizer,
    pixels: Tensor,
    batches: Iterable[Batch],
    memories: Sequence[ClusterMemory],
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    engine: Engine,
    task: Task,
    check: Callable[[], None],
    ranks: Ranks = ALONE,
) -> float:
    """Train on ``batches`` and give the mean loss.

    ``pixels`` uint8 (n, h, w, 3), on the device or on the host. The loss of a batch is the mean over its
    parts. ``check`` is called after every step and may raise. With several ``ranks``, ``network`` is what
    ``ranks.wrap`` gave; all ranks are given the same batches and random numbers, and each takes its share.
    After the epoch all have the running statistics of the leading rank.

    Raises:
        TrainingError: where the loss or the features are not finite; the last epoch's checkpoint is
            untouched.
    """
    network.train()
    total = torch.zeros((), device=engine.device)
    steps = 0
    for batch in batches:
        total += _step(
            network, optimizer, pixels, batch, memories, augmentation, generator, engine=engine, ranks=ranks
        )
        steps += 1
        task.advance()
        task.show(lambda total=total, steps=steps: {"loss": float(total) / steps})  # type: ignore[misc]
        check()
    mean = float(total) / max(steps, 1)
    # What is spread over ranks or compiled shares its weights with what is inside.
    inside = getattr(network, "_orig_mod", network)
    inside = getattr(inside, "module", inside)
    ranks.align_buffers(inside)
    if steps:
        _require_finite(mean, inside, pixels, batch, engine, steps)
    return mean


def _require_finite(
    loss: float, network: nn.Module, pixels: Tensor, batch: Batch, engine: Engine, steps: int
) -> None:
    """Raise where the loss, or what the network says after its last step, is not finite.

    The last loss was computed before the last step: without a look at the network a step that broke it
    would be saved as the last good state.
    """
    rows = batch[0].rows[:8]
    features = extract(network, pixels, rows, device=engine.device, precision=engine.precision)
    if not (np.isfinite(loss) and bool(features.isfinite().all())):
        raise TrainingError(
            f"The loss is {loss} after {steps} steps, and the network has come to numbers that are not "
            "finite. The state before this epoch is saved, but --resume would lead here again: start a new "
            "run with a smaller learning rate (--lr), or with --precision fp32."
        )


def gather(pixels: Tensor, rows: IntArray, engine: Engine) -> Tensor:
    """Bring the pixels of ``rows`` (b,) to the device: uint8 (b, h, w, 3)."""
    index = torch.from_numpy(rows)
    if pixels.device == engine.device:
        return pixels[index.to(engine.device, non_blocking=True)]
    return pixels[index].pin_memory().to(engine.device, non_blocking=True)


def _step(
    network: nn.Module,
    optimizer: Optimizer,
    pixels: Tensor,
    batch: Batch,
    memories: Sequence[ClusterMemory],
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    engine: Engine,
    ranks: Ranks,
) -> Tensor:
    """Take one step; give the loss of the whole batch, which is the same on every rank."""
    rows = np.concatenate([part.rows for part in batch])
    if len(rows) < FEWEST_IMAGES_OF_A_RANK * ranks.size:
        ranks = ALONE
    shares = ranks.shares(len(rows))
    own = shares[ranks.rank]
    # The dice of the whole batch are thrown everywhere, so that an image's fate is not that of its rank.
    dice = augmentation.draw(len(rows), generator)[own]
    with engine.autocast():
        found = network(augmentation.apply(gather(pixels, rows[own], engine), dice))
    features = ranks.gather_for_loss(found.float(), shares)
    parts = torch.split(features, [len(part.rows) for part in batch])
    # Targets stay on the host: the memory plans its updates there, without waiting for the device.
    targets = [torch.from_numpy(part.targets) for part in batch]
    losses = [
        memories[part.memory].loss(compared, target)
        for part, compared, target in zip(batch, parts, targets, strict=True)
    ]
    loss = torch.stack(losses).mean()
    optimizer.zero_grad(set_to_none=True)
    # Gradients are the mean over the ranks, and what is wanted is the sum of their shares.
    (loss * ranks.size).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    for part, compared, target in zip(batch, parts, targets, strict=True):
        memories[part.memory].update(compared.detach(), target)
    return loss.detach()


def training_state(network: Network, optimizer: Optimizer, schedule: LRScheduler) -> dict[str, Any]:
    """Give what a resumed run needs of these three."""
    return {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }


def restore_training_state(
    state: dict[str, Any], network: Network, optimizer: Optimizer, schedule: LRScheduler
) -> None:
    """Put back what ``training_state`` gave."""
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
