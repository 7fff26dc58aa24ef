"""One rank of the runs that test_distributed.py compares: some steps of training, written to a file."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from icsr_cli.choices import available, find
from icsr_cli.config.schema import ModelSettings
from icsr_cli.images.augment import Augmentation
from icsr_cli.memory import ClusterMemory, centroids_of
from icsr_cli.progress import Task
from icsr_cli.recipes import camera_features
from icsr_cli.recipes.distributed import Ranks, extract_together, join, leave
from icsr_cli.recipes.steps import Engine, Part, build_network, train_epoch
from icsr_cli.types import Epoch, Labels

N_IMAGES, N_CLUSTERS = 40, 5
#: Uneven for two ranks and for three.
BATCH_SIZES = (13, 16, 7, 15, 8)
#: Too small to be split: every rank computes it whole, by its own statistics.
SMALL = 3


class AsRanks(nn.Module):
    """What the published code does on several GPUs, in one process: each part by its own statistics."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, images: Tensor) -> Tensor:
        if len(images) < 2 * self.size:
            return self.network(images)
        first, *others = Ranks(size=self.size).shares(len(images))
        features = [self.network(images[first])]
        for share in others:  # their running statistics are forgotten
            copies = {name: value.clone() for name, value in self.network.named_buffers()}
            features.append(functional_call(self.network, copies, (images[share],)))
        return torch.cat(features)


def network_of(engine: Engine) -> nn.Module:
    """In float64 what is left of a difference is the algorithm's, not the rounding of this processor."""
    network = build_network(ModelSettings(arch="resnet_small", weights="none"), 7, engine).double()
    network.register_forward_pre_hook(lambda module, images: (images[0].double(),))
    return network


def train_memory(name: str, ranks: Ranks, engine: Engine) -> dict[str, Any]:
    """Train three steps with the memory of that name; gives what it makes of everything."""
    network = network_of(engine)
    start = {key: value.clone() for key, value in network.named_parameters() if value.requires_grad}
    drawn = np.random.default_rng(0)
    pixels = torch.from_numpy(drawn.integers(0, 256, (N_IMAGES, 32, 16, 3), dtype=np.uint8))
    trainee, rows = ranks.wrap(network, sync_bn=True), np.arange(N_IMAGES)
    how = {"batch_size": 6, "device": engine.device, "precision": "fp32", "task": Task()}
    features = extract_together(network, pixels, rows, ranks, **how)
    method = find("memories", name)
    labels = Labels.of(np.arange(N_IMAGES) % N_CLUSTERS)
    memory = method.Memory(Epoch(1, features, drawn.integers(0, 3, N_IMAGES), labels), method.Options())
    batches = [[Part(0, batch, batch)] for batch in (drawn.choice(N_IMAGES, size) for size in (13, 16, 8))]
    loss = train_epoch(
        trainee,
        torch.optim.SGD(network.parameters(), lr=1e-4),
        pixels,
        batches,
        [memory],
        Augmentation(32, 16, pad=2),
        torch.Generator().manual_seed(1),
        engine=engine,
        task=Task(),
        check=lambda: None,
        ranks=ranks,
    )
    found = {key: network.get_parameter(key).detach() - value for key, value in start.items()}
    # What the memory has become shows in what it says of the features it began with.
    said = torch.stack([memory.loss(features[one], torch.from_numpy(one)) for one in np.split(rows, 4)])
    return {**found, "loss": torch.tensor(loss), "memory": said}


def main(mode: str, out: Path) -> None:
    torch.set_num_threads(1)
    ranks, _ = join(["cpu"])
    engine = Engine(torch.device("cpu"), "fp32")
    if mode == "memories":
        memories = {name: train_memory(name, ranks, engine) for name in available("memories")}
        torch.save(memories, out / f"{mode}-{ranks.rank}-of-{ranks.size}.pt")
        leave()
        return
    network = network_of(engine)
    drawn = np.random.default_rng(0)
    start = {name: value.clone() for name, value in network.named_parameters() if value.requires_grad}
    pixels = torch.from_numpy(drawn.integers(0, 256, (N_IMAGES, 32, 16, 3), dtype=np.uint8))
    labels = np.arange(N_IMAGES) % N_CLUSTERS
    if mode.startswith("as-ranks-"):
        trainee: nn.Module = AsRanks(network, int(mode.removeprefix("as-ranks-")))
    else:
        trainee = ranks.wrap(network, sync_bn=mode == "sync-bn")
    rows = np.arange(N_IMAGES)
    how = {"batch_size": 6, "device": engine.device, "precision": "fp32", "task": Task()}
    features = extract_together(network, pixels, rows, ranks, **how)
    with mock.patch.object(camera_features, "BATCH", 5):
        by_camera = camera_features.extract_by_camera(
            network,
            rows % 3,
            1,
            lambda some, size: extract_together(network, pixels, some, ranks, **{**how, "batch_size": size}),
        )
    memories = [ClusterMemory(centroids_of(features, labels), momentum=m) for m in (0.2, 0.1)]
    batches = []
    for step in range(10):
        size = BATCH_SIZES[step % len(BATCH_SIZES)]
        if step == 9 and mode != "sync-bn" and mode != "alone":
            size = SMALL
        chosen = drawn.choice(N_IMAGES, size, replace=False)
        halves = np.array_split(chosen, 2)
        batches.append([Part(memory, half, labels[half]) for memory, half in enumerate(halves)])
    loss = train_epoch(
        trainee,
        # Small steps: a training that amplifies what it is given would amplify roundings, too.
        torch.optim.SGD(network.parameters(), lr=1e-4),
        pixels,
        batches,
        memories,
        Augmentation(32, 16, pad=2),
        torch.Generator().manual_seed(1),
        engine=engine,
        task=Task(),
        check=lambda: None,
        ranks=ranks,
    )
    found = {
        "loss": loss,
        "features": features,
        "by camera": by_camera,
        "later": extract_together(network, pixels, rows, ranks, **how),
        "centroids": [memory.centroids for memory in memories],
        "buffers": dict(network.named_buffers()),
        "moved": {name: network.get_parameter(name).detach() - value for name, value in start.items()},
    }
    torch.save(found, out / f"{mode}-{ranks.rank}-of-{ranks.size}.pt")
    leave()
