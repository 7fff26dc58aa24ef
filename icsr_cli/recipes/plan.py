"""The schedule on paper: how long a run will take, and how much memory, before anything is bought or begun.

The network's operations and the bytes they touch are counted on tensors without numbers (torch's ``meta``
device), the operations by the formulas of torch's ``FlopCounterMode``. An operation takes the longer of two
times, that of its arithmetic and that of its traffic with the memory, and its launch besides: the roofline of
Williams et al. (CACM 2009). Rates of a GPU are those its maker publishes; those of the CPU are measured.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.flop_counter import flop_registry

from icsr_cli import config, datasets
from icsr_cli.choices import Options
from icsr_cli.config.schema import GlobalSettings, ImageSettings, ModelSettings, Settings
from icsr_cli.errors import UsageError
from icsr_cli.models import Network, build
from icsr_cli.models.batch_norm import group_batch_norm
from icsr_cli.models.unfilled import unfilled
from icsr_cli.recipes.blocks import blocks
from icsr_cli.recipes.machine import memory_bytes
from icsr_cli.recipes.opening import check_images
from icsr_cli.recipes.spare_memory import check_parts, spare_memory
from icsr_cli.recipes.steps import FEWEST_IMAGES_OF_A_RANK
from icsr_cli.types import Size

#: Of a published peak, what large convolutions and plain copies come to. An assumption, not a measurement.
_ARITHMETIC, _TRAFFIC = 0.5, 0.8
#: Seconds that Python and torch take to send one operation to a GPU: measured once (docs/training.md).
_LAUNCH = 30e-6
#: The same of an operation that is recorded, and what recording takes an epoch: measured there, too.
_PLAYED, _RECORDING = 8e-6, 0.5
#: Similar pairs that an image has (docs/labels.md), and how often the chain goes through their 12 bytes.
_PAIRS, _PASSES = 1500, 40
_FLOAT = 4


@dataclass(frozen=True)
class Rates:
    """What a device can do: operations and bytes per second, bytes of memory.

    ``bf16`` is 0 where there is none; ``link`` joins the devices, and the pixels on the host to them;
    ``launch`` is in seconds per operation.
    """

    name: str
    fp32: float
    bf16: float
    bandwidth: float
    memory: float
    link: float
    launch: float = _LAUNCH

    def arithmetic(self, precision: str) -> float:
        """Give operations per second in a precision of the settings."""
        return self.bf16 if self.bf16 and precision in ("auto", "bf16") else self.fp32


def _published(name: str, fp32: float, bf16: float, bandwidth: float, memory: float, link: float) -> Rates:
    """Take the maker's T operations, GB per second and GB; ``fp32`` is that of convolutions (TF32)."""
    return Rates(
        name,
        fp32 * 1e12 * _ARITHMETIC,
        bf16 * 1e12 * _ARITHMETIC,
        bandwidth * 1e9 * _TRAFFIC,
        memory * 1e9,
        link * 1e9 * _TRAFFIC,
    )


#: NVIDIA's data sheets: dense operations, one direction of the link.
DEVICES: Final = {
    "t4": _published("NVIDIA T4", 8.1, 0, 320, 16, 16),
    "v100": _published("NVIDIA V100 32 GB", 15.7, 0, 900, 32, 150),
    "rtx3090": _published("NVIDIA RTX 3090", 35.6, 71, 936, 24, 32),
    "rtx4090": _published("NVIDIA RTX 4090", 82.6, 165, 1008, 24, 32),
    "l4": _published("NVIDIA L4", 60, 121, 300, 24, 32),
    "a100": _published("NVIDIA A100 80 GB", 156, 312, 2039, 80, 300),
    "h100": _published("NVIDIA H100 80 GB", 494, 989, 3350, 80, 450),
    "h200": _published("NVIDIA H200 141 GB", 494, 989, 4800, 141, 450),
}


@dataclass(frozen=True)
class Work:
    """What something takes: operations, bytes of memory traffic, operations launched, bytes over the link."""

    seconds: float = 0.0
    arithmetic: float = 0.0
    traffic: float = 0.0
    launches: float = 0.0
    link: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __mul__(self, times: float) -> Work:
        return Work(*(times * value for value in vars(self).values()))

    @property
    def binds(self) -> str:
        """Name what takes the most of it."""
        names = {"arithmetic": "arithmetic", "traffic": "memory traffic"}
        names |= {"launches": "launching operations", "link": "the link"}
        return names[max(names, key=lambda name: getattr(self, name))]


@dataclass(frozen=True)
class StagePlan:
    """A stage: seconds of an epoch by part, seconds in all, bytes of each device by use."""

    name: str
    epochs: int
    parts: dict[str, Work]
    networks: float
    memory: dict[str, float]

    @property
    def epoch(self) -> float:
        """Seconds of one epoch of one network."""
        return sum(part.seconds for part in self.parts.values())

    @property
    def seconds(self) -> float:
        """Seconds of the stage: of the device that trains the most networks."""
        return self.epoch * self.epochs * self.networks

    @property
    def binds(self) -> str:
        """Say which part takes longest, and what of the device it waits for."""
        name = max(self.parts, key=lambda part: self.parts[part].seconds)
        return f"{name}: {self.parts[name].binds}"

    def as_dict(self) -> dict[str, Any]:
        """Give everything for JSON."""
        return {
            **asdict(self),
            "epoch_seconds": self.epoch,
            "seconds": self.seconds,
            "memory_bytes": sum(self.memory.values()),
            "binds": self.binds,
        }


@dataclass(frozen=True)
class Schedule:
    """A run on so many devices, of a data set by its name."""

    dataset: str
    rates: Rates
    devices: int
    images: int
    cameras: int
    stages: tuple[StagePlan, ...]

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def fits(self) -> bool:
        """Whether every stage fits into a device's memory."""
        return all(sum(stage.memory.values()) <= self.rates.memory for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """Give everything for JSON."""
        own = {
            "dataset": self.dataset,
            "device": self.rates.name,
            "devices": self.devices,
            "images": self.images,
        }
        stages = [stage.as_dict() for stage in self.stages]
        return {**own, "cameras": self.cameras, "stages": stages, "seconds": self.seconds, "fits": self.fits}


def answer(dataset: str | None, data_root: Path, gpus: int | None, gpu: str | None, **asked: Any) -> Schedule:
    """Estimate a run on a prepared data set, or on a published one that need not be there.

    ``asked``: its method and settings, as ``config.load`` takes them.

    Raises:
        UsageError: settings that do not fit, a device without rates, a number of them below 1.
        DatasetError: a data set that is neither.
    """
    if gpus is not None and gpus < 1:
        raise UsageError(f"--gpus takes a number of at least 1, got {gpus}.")
    rates = rates_of(gpu or here() or ("a100" if gpus else "cpu"))
    if dataset in set(datasets.available()).difference(datasets.names(data_root)):
        published = datasets.benchmark(dataset)
        images = published.counts["train"].images
        if images is not None:
            return plan(config.load(dataset, **asked), images, published.cameras, rates, gpus or 1)
    data = datasets.load(datasets.newest(data_root) if dataset is None else dataset, data_root)
    cameras = len(set(data.train.cameras.tolist()))
    return plan(config.load_for(data, **asked), len(data.train), cameras, rates, gpus or 1)


def here() -> str | None:
    """Name the first GPU of this machine as ``DEVICES`` does; None where there is none that is known."""
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    words = name.lower().replace("rtx ", "rtx").replace("-", " ").split()
    return next((device for device in DEVICES if device in words), None)


def rates_of(device: str) -> Rates:
    """Give the rates of a device by name; those of the CPU are measured, which takes half a second.

    Raises UsageError for an unknown name.
    """
    if device == "cpu":
        return probe()
    if device not in DEVICES:
        raise UsageError(f"There are no rates of {device!r}; there are cpu, {', '.join(DEVICES)}.")
    return DEVICES[device]


def plan(settings: Settings, images: int, cameras: int, rates: Rates, devices: int = 1) -> Schedule:
    """Estimate a run with ``settings`` on so many ``images`` under ``cameras``."""
    stages = []
    for stage in settings.stages:
        if stage == "cam" and settings.cam.network == "per-camera":
            # They are trained one after the other, whole ones on each device.
            shares = images // cameras, 1, math.ceil(cameras / devices)
        else:
            shares = images, devices, 1
        stages.append(_stage(stage, settings, rates, *shares))
    return Schedule(settings.dataset, rates, devices, images, cameras, tuple(stages))


def _stage(
    name: str, settings: Settings, rates: Rates, images: int, devices: int, networks: int
) -> StagePlan:
    """One network on ``images``, its batches split over ``devices`` where they are large enough."""
    own = settings.of(name)
    split = own.batch_size >= FEWEST_IMAGES_OF_A_RANK * devices
    batch = math.ceil(own.batch_size / devices) if split else own.batch_size
    check_images(settings, name)
    network = _on_paper(settings.cam.model if own.model.weights == "cam" else own.model, settings.image.size)
    check_parts(network.base, own, processes=devices, sync_bn=settings.sync_bn)
    if own.bn_group:
        group_batch_norm(network, own.bn_group)
    weights = sum(parameter.numel() for parameter in network.parameters()) * _FLOAT
    on_gpu = rates.name != "CPU"
    recorded = on_gpu and settings.cuda_graph and devices == 1 and not own.spares_memory
    played = replace(rates, launch=min(rates.launch, _PLAYED)) if recorded else rates
    recording = Work(launches=_RECORDING, seconds=_RECORDING) if recorded else Work()
    half = 0.5 if rates.arithmetic(settings.precision) == rates.bf16 else 1.0
    part = _images(settings.image, math.ceil(batch / own.accumulate))
    saved = half * _saved(network, part, list(blocks(network.base)) if own.checkpoint else [])
    spare_memory(network.base, own)
    moments = _moments(own.optimizer)
    update = (3 + 2 * moments) * weights / rates.bandwidth
    step = _training(network, settings, batch, played) + Work(seconds=update, traffic=update)
    share = Work(link=2 * weights / rates.link, seconds=2 * weights / rates.link) if devices > 1 else Work()
    pixels = images * settings.image.height * settings.image.width * 3
    resident = on_gpu and pixels < rates.memory / 2
    if not resident:
        moved = batch * settings.image.height * settings.image.width * 3 / rates.link
        share = share + Work(link=moved)  # under way while the step before computes
    chunk = min(settings.evaluation.batch_size, images)
    embed, peak = _extraction(network, settings, chunk, rates)
    passes = 2 if isinstance(own, GlobalSettings) and own.label_norm == "camera" else 1
    parts = {
        "extraction": embed * (passes * math.ceil(images / chunk) / devices),
        "labels": _labels(images, network.dim, rates),
        "training": (step + share) * own.iters + recording,
    }
    memory = {
        "weights, gradients, optimiser": (2.0 + moments) * weights,
        "activations": max(saved, peak),
        "features and centroids": 2.0 * images * network.dim * _FLOAT,
        "pixels": float(pixels) if resident else 0.0,
    }
    return StagePlan(name, own.epochs, parts, networks, memory)


def _on_paper(model: ModelSettings, size: Size) -> Network:
    options = model.model_dump(include={"arch", "num_features", "pooling", "stripes"})
    with unfilled():
        network = build(**options, size=size)
    return network.to(memory_format=torch.channels_last)


def _images(image: ImageSettings, count: int) -> Tensor:
    empty = torch.empty((count, 3, image.height, image.width), device="meta")
    return empty.to(memory_format=torch.channels_last)


def _moments(optimizer: Options) -> int:
    """Count the numbers that an optimiser keeps of each weight: SGD its momentum, Adam two."""
    momentum = getattr(optimizer, "momentum", None)
    return 2 if momentum is None else int(momentum > 0)


def _training(network: Network, settings: Settings, batch: int, rates: Rates) -> Work:
    network.train()
    with _Counter(rates, settings.precision) as counter:
        network(_images(settings.image, batch)).square().sum().backward()
    size = settings.image.height * settings.image.width * 3 * batch
    # Bytes of the pixels, padded twice, and of six passes over them as float32.
    pixels = 6 * size * _FLOAT / rates.bandwidth
    found: Work = counter.work + Work(seconds=pixels, traffic=pixels)
    return found


def _saved(network: Network, images: Tensor, sparing: Sequence[nn.Module] = ()) -> float:
    """Count the bytes that are kept for the backward pass, the weights left out.

    ``sparing``: blocks that compute again, of which one at a time keeps more than what goes in.
    """
    kept: dict[int, tuple[nn.Module | None, int]] = {}  # by storage: a view keeps nothing more
    held: list[Tensor] = []
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    inside: nn.Module | None = None

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept.setdefault(storage._cdata, (inside, storage.nbytes()))
        held.append(tensor)
        return tensor

    def enter(block: nn.Module, given: Any) -> None:
        nonlocal inside
        tree_map_only(Tensor, keep, given)
        inside = block

    def leave(*_: Any) -> None:
        nonlocal inside
        inside = None

    hooks = [block.register_forward_pre_hook(enter) for block in sparing]
    hooks += [block.register_forward_hook(leave) for block in sparing]
    network.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
    for hook in hooks:
        hook.remove()
    of_block: Counter[nn.Module | None] = Counter()
    for place, size in kept.values():
        of_block[place] += size
    return float(of_block.pop(None, 0) + max(of_block.values(), default=0))


def _extraction(network: Network, settings: Settings, batch: int, rates: Rates) -> tuple[Work, float]:
    """Forward of one batch, and the bytes of the largest operation."""
    network.eval()
    with torch.no_grad(), _Counter(rates, settings.precision) as counter:
        network(_images(settings.image, batch))
    return counter.work, counter.largest


def _labels(images: int, width: int, rates: Rates) -> Work:
    """Neighbours of all pairs; and what follows, which goes with the pairs that are similar."""
    products = 2.0 * images * images * width / rates.fp32 / (2 if rates.name == "CPU" else 1)
    pairs = float(images) * min(_PAIRS, images) * 12 * _PASSES / rates.bandwidth
    return Work(seconds=products + pairs, arithmetic=products, traffic=pairs)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the operations that come by, with the time each will take."""

    def __init__(self, rates: Rates, precision: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rates, self.precision = rates, precision
        self.size = 0.5 if rates.arithmetic(precision) == rates.bf16 else 1.0
        self.work, self.largest = Work(), 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        view = any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        if view or func._schema.name.startswith("aten::empty"):
            return out
        tensors = [one for one in tree_flatten((args, kwargs, out))[0] if isinstance(one, Tensor)]
        touched = sum(one.numel() * one.element_size() for one in tensors) * self.size
        formula = flop_registry.get(func.overloadpacket)
        operations = formula(*args, **(kwargs or {}), out_val=out) if formula else 0
        arithmetic = operations / self.rates.arithmetic(self.precision)
        traffic, launch = touched / self.rates.bandwidth, self.rates.launch
        # A GPU computes one operation while the next is sent to it: the slower of the two counts.
        seconds = max(arithmetic, traffic, launch)
        self.work = self.work + Work(seconds, arithmetic, traffic, launch)
        self.largest = max(self.largest, touched)
        return out


def probe() -> Rates:
    """Measure the CPU: convolutions of a middle stage, a pass over activations, an operation's overhead.

    By processor time, so that other work on the machine does not count; spread over torch's threads.
    """
    images = torch.randn(16, 64, 32, 16).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    values, tiny = torch.randn(1 << 20), torch.randn(4)

    def convolve() -> None:
        layer(images).sum().backward()

    # Forward, and the gradient of the weights: twice the forward pass.
    operations = 2 * 2 * 16 * 32 * 16 * 64 * 64 * 9
    arithmetic = operations / _processor_seconds(convolve)
    bandwidth = 2 * values.numel() * _FLOAT / _processor_seconds(lambda: torch.relu(values))
    launch = _processor_seconds(lambda: torch.relu(tiny))
    threads = torch.get_num_threads()
    memory, _ = memory_bytes()
    return Rates(
        "CPU", arithmetic * threads, 0.0, bandwidth * threads, float(memory), bandwidth * threads, launch
    )


def _processor_seconds(work: Callable[[], Any]) -> float:
    """Give the processor time of one call, the least of several in a sixth of a second."""
    work()
    found: list[float] = []
    ends = time.perf_counter() + 0.17
    while len(found) < 3 or time.perf_counter() < ends:
        started = time.process_time()
        for _ in range(4):
            work()
        found.append((time.process_time() - started) / 4)
    return min(found)
