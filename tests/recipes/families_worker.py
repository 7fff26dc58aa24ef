"""One rank of the runs that test_distributed_families.py compares: five steps of tiny networks of timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from icsr_cli.config.schema import ModelSettings, StageSettings
from icsr_cli.images.augment import Augmentation
from icsr_cli.memory import ClusterMemory, centroids_of
from icsr_cli.progress import Task
from icsr_cli.recipes.distributed import Ranks, join, leave
from icsr_cli.recipes.spare_memory import spare_memory
from icsr_cli.recipes.steps import Engine, Part, build_network, train_epoch

NAMES = ("test_vit", "test_convnext")
N_IMAGES, N_CLUSTERS, SIZE = 24, 4, (64, 32)
#: Uneven for two ranks, and for their parts.
BATCH_SIZES = (13, 16, 10)


def train(name: str, parts: int, ranks: Ranks) -> dict[str, Any]:
    """Train; gives all that came of it. The backbone is in float64: no rounding hides a difference."""
    model = ModelSettings(arch=f"timm:{name}", weights="none")
    engine, drawn = Engine(torch.device("cpu"), "fp32"), np.random.default_rng(0)
    network = build_network(model, 7, engine, SIZE)
    network.base.double().register_forward_pre_hook(lambda module, images: (images[0].double(),))
    start = {key: value.detach().clone() for key, value in network.named_parameters() if value.requires_grad}
    trainee = ranks.wrap(network, sync_bn=True)  # the BatchNorm on the features
    spare_memory(network.base, StageSettings(model=model, accumulate=parts, checkpoint=parts > 1))
    labels = np.arange(N_IMAGES) % N_CLUSTERS
    features = torch.from_numpy(drawn.normal(size=(N_IMAGES, network.dim))).float()
    memory = ClusterMemory(centroids_of(features, labels))
    batches = [drawn.choice(N_IMAGES, size, replace=False) for size in BATCH_SIZES]
    loss = train_epoch(
        trainee,
        torch.optim.SGD(network.parameters(), lr=1e-4),
        torch.from_numpy(drawn.integers(0, 256, (N_IMAGES, *SIZE, 3), dtype=np.uint8)),
        [[Part(0, batch, labels[batch])] for batch in batches],
        [memory],
        Augmentation(*SIZE, pad=2),
        torch.Generator().manual_seed(1),
        engine=engine,
        task=Task(),
        check=lambda: None,
        ranks=ranks,
        clip=0.5,
    )
    moved = {key: network.get_parameter(key).detach() - value for key, value in start.items()}
    return {"loss": torch.tensor(loss), "centroids": memory.centroids, **moved}


def main(out: Path, parts: int) -> None:
    """Train each network as this rank of those that there are."""
    torch.set_num_threads(1)
    ranks, _ = join(["cpu"])
    torch.save({name: train(name, parts, ranks) for name in NAMES}, out / f"{ranks.rank}-of-{ranks.size}.pt")
    leave()
