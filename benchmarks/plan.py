"""The schedule on paper beside epochs that were trained.

    python benchmarks/plan.py                # seconds of processor time, three sizes of network
    python benchmarks/plan.py --device cuda  # seconds, on this machine's GPU

Each size trains an epoch of the global stage on made-up images with the recipe's own functions (extraction,
labels, steps), and `icsr_cli.recipes.plan` is asked for the same settings; its rates of the CPU are measured
before. There processor time, because it does not count what else the machine does.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from icsr_cli import config
from icsr_cli.images.augment import Augmentation
from icsr_cli.labelling import evidence_of, label
from icsr_cli.models.batch_norm import group_batch_norm
from icsr_cli.progress import Task
from icsr_cli.recipes.plan import here, plan, rates_of
from icsr_cli.recipes.recorded import Recorded
from icsr_cli.recipes.steps import Part, build_memory, build_network, choose_engine, repeatable, train_epoch
from icsr_cli.types import Epoch, Labels

#: Architecture, height, width, batch, images per group of BatchNorm (0: all), images, steps.
SIZES = {
    "cpu": (
        ("resnet_small", 64, 32, 64, 0, 1024, 12),
        ("resnet18", 128, 64, 32, 0, 256, 6),
        ("resnet50", 256, 128, 16, 0, 48, 3),
    ),
    "cuda": (
        ("resnet50", 256, 128, 64, 0, 4096, 50),
        ("resnet50", 256, 128, 64, 16, 4096, 50),
        ("resnet_ibn50a", 256, 128, 64, 0, 4096, 50),
        ("resnet_ibn50a", 256, 128, 64, 16, 4096, 50),
    ),
}


def now(device):
    """Give the seconds on a GPU's clock once all that was sent is done, or of this process on the CPU."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(settings, images, engine):
    """Give the seconds of the parts of an epoch."""
    own, image, device = settings.global_, settings.image, engine.device
    network = build_network(own.model, 1, engine)
    if own.bn_group:
        group_batch_norm(network, own.bn_group)
    drawn = np.random.default_rng(0)
    pixels = torch.from_numpy(
        drawn.integers(0, 256, (images, image.height, image.width, 3), dtype=np.uint8)
    ).to(device)
    optimizer, _ = own.optimizer.module.build(
        [one for one in network.parameters() if one.requires_grad], own.optimizer
    )
    rows = [np.arange(own.batch_size) for _ in range(own.iters)]
    labels = Labels.of(np.arange(images) % max(2, images // 16))
    seconds = {}
    for _ in range(2):  # the first warms up
        started = now(device)
        features = engine.extract(network, pixels, batch_size=settings.evaluation.batch_size)
        seconds["extraction"] = now(device) - started
        started = now(device)
        label(evidence_of(features, own, cameras=np.arange(images) % 3), own)
        seconds["labels"] = now(device) - started
        memory = build_memory(Epoch(1, features, np.zeros(images, dtype=np.int64), labels), own.memory)
        started = now(device)
        train_epoch(
            Recorded(network, print) if device.type == "cuda" else network,
            optimizer,
            pixels,
            [[Part(0, batch, batch)] for batch in rows],
            [memory],
            Augmentation(image.height, image.width),
            torch.Generator().manual_seed(1),
            engine=engine,
            task=Task(),
            check=lambda: None,
        )
        seconds["training"] = now(device) - started
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, help="how many of the sizes, the smallest first")
    parser.add_argument("--images", type=int, help="of every size, in place of its own")
    parser.add_argument("--iters", type=int, help="steps of every size, in place of its own")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: a GPU whose rates are known")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    engine = choose_engine(arguments.device, "auto")
    kind = engine.device.type
    rates = rates_of((here() or parser.error("there are no rates of this GPU")) if kind == "cuda" else "cpu")
    print("| network | part | planned, s | measured, s | planned / measured |")
    print("| --- | --- | ---: | ---: | ---: |")
    for arch, height, width, batch, group, own_images, own_iters in SIZES[kind][: arguments.sizes]:
        images, iters = arguments.images or own_images, arguments.iters or own_iters
        given = {"image.height": height, "image.width": width, "precision": engine.precision}
        stage = {"model.arch": arch, "model.weights": "none", "iters": iters, "batch_size": batch}
        given |= {f"global.{key}": value for key, value in stage.items()}
        given |= {"evaluation.batch_size": 64, "global.bn_group": group, "stages": ("global",)}
        settings = config.load("made-up", method="cluster-contrast", options=given)
        with repeatable(engine.device):
            measured = measure(settings, images, engine)
        [planned] = plan(settings, images, 1, rates).stages
        rows = [(name, work.seconds, measured[name]) for name, work in planned.parts.items()]
        rows.append(("epoch", planned.epoch, sum(measured.values())))
        size = f"{arch}, {height} x {width}" + (f", groups of {group}" if group else "")
        for name, paper, real in rows:
            print(f"| {size} | {name} | {paper:.3f} | {real:.3f} | {paper / real:.2f} |")


if __name__ == "__main__":
    main()
