"""The schedule on paper beside epochs that were trained: seconds of processor time, three sizes of network.

    python benchmarks/plan.py

Each size trains an epoch of the global stage on made-up images with the recipe's own functions (extraction,
labels, steps), and `icsr_cli.recipes.plan` is asked for the same settings; its rates of the CPU are measured
in the same minute. Processor time, because it does not count what else the machine does.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from icsr_cli import config
from icsr_cli.features import extract
from icsr_cli.images.augment import Augmentation
from icsr_cli.labelling import evidence_of, label
from icsr_cli.progress import Task
from icsr_cli.recipes.plan import plan, probe
from icsr_cli.recipes.steps import Engine, Part, build_memory, build_network, train_epoch
from icsr_cli.types import Epoch, Labels

#: Architecture, height, width, batch, images, steps.
SIZES = (
    ("resnet_small", 64, 32, 64, 1024, 12),
    ("resnet18", 128, 64, 32, 256, 6),
    ("resnet50", 256, 128, 16, 48, 3),
)


def measure(settings, images):
    """Give the processor seconds of the parts of an epoch."""
    own, image = settings.global_, settings.image
    engine = Engine(torch.device("cpu"), "fp32")
    network = build_network(own.model, 1, engine)
    drawn = np.random.default_rng(0)
    pixels = torch.from_numpy(drawn.integers(0, 256, (images, image.height, image.width, 3), dtype=np.uint8))
    optimizer, _ = own.optimizer.module.build(
        [one for one in network.parameters() if one.requires_grad], own.optimizer
    )
    rows = [np.arange(own.batch_size) for _ in range(own.iters)]
    labels = Labels.of(np.arange(images) % max(2, images // 16))
    seconds = {}
    for _ in range(2):  # the first warms up
        started = time.process_time()
        features = extract(network, pixels, batch_size=settings.evaluation.batch_size)
        seconds["extraction"] = time.process_time() - started
        started = time.process_time()
        label(evidence_of(features, own, cameras=np.arange(images) % 3), own)
        seconds["labels"] = time.process_time() - started
        memory = build_memory(Epoch(1, features, np.zeros(images, dtype=np.int64), labels), own.memory)
        started = time.process_time()
        train_epoch(
            network,
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
        seconds["training"] = time.process_time() - started
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, default=len(SIZES), help="how many of the sizes, the smallest first"
    )
    parser.add_argument("--images", type=int, help="of every size, in place of its own")
    parser.add_argument("--iters", type=int, help="steps of every size, in place of its own")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| network | part | planned, s | measured, s | planned / measured |")
    print("| --- | --- | ---: | ---: | ---: |")
    for arch, height, width, batch, own_images, own_iters in SIZES[: arguments.sizes]:
        images, iters = arguments.images or own_images, arguments.iters or own_iters
        given = {"image.height": height, "image.width": width, "precision": "fp32"}
        stage = {"model.arch": arch, "model.weights": "none", "iters": iters, "batch_size": batch}
        given |= {f"global.{key}": value for key, value in stage.items()}
        given |= {"evaluation.batch_size": 64, "global.bn_group": 0, "stages": ("global",)}
        settings = config.load("made-up", method="cluster-contrast", options=given)
        measured = measure(settings, images)
        [planned] = plan(settings, images, 1, probe()).stages
        rows = [(name, work.seconds, measured[name]) for name, work in planned.parts.items()]
        rows.append(("epoch", planned.epoch, sum(measured.values())))
        for name, paper, real in rows:
            print(f"| {arch}, {height} x {width} | {name} | {paper:.3f} | {real:.3f} | {paper / real:.2f} |")


if __name__ == "__main__":
    main()
