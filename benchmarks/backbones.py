"""What ten backbones cost: parameters, operations, a step of training, images per second of extraction.

    python benchmarks/backbones.py
    python benchmarks/backbones.py --size 256x128 --batch 64 --device cuda
    python benchmarks/backbones.py --train timm:convnext_atto

Random weights, images of noise; the steps are those of `icsr train` (augmentation, loss against a memory,
backward, SGD, update, with a share of the look at the network's numbers that ends an epoch), the extraction
is its own. Operations are those of one image, a multiplication and an addition counted as two, as PyTorch
counts them. Times are the best of some, after a warm-up, on the clock and of the processor: where the machine
does other work as well, the latter says more.

`--train ARCH` trains `camera-aware` with that network from random weights on the synthetic data set of a
preset, and measures it on people whom training never saw.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from icsr_cli.config.schema import ModelSettings
from icsr_cli.features import extract
from icsr_cli.images.augment import Augmentation
from icsr_cli.memory import ClusterMemory, centroids_of
from icsr_cli.progress import Progress, Task
from icsr_cli.recipes.steps import Engine, Part, build_network, choose_engine, train_epoch

ARCHITECTURES = (
    "resnet_small",
    "osnet_x0_25",
    "resnet18",
    "resnet50",
    "resnet_ibn50a",
    "timm:mobilenetv3_small_100",
    "timm:efficientnet_b0",
    "timm:convnext_atto",
    "timm:vit_tiny_patch16_224",
    "timm:vit_small_patch16_224",
)
CLUSTERS = 8


def best(work: Callable[[], Any], device: torch.device, repeat: int) -> tuple[float, float]:
    """Fewest seconds of some calls, the first left out: on the clock, and of the processor."""
    found = []
    for _ in range(repeat + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started, busy = time.perf_counter(), time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append((time.perf_counter() - started, time.process_time() - busy))
    clock, processor = zip(*found[1:], strict=True)
    return min(clock), min(processor)


def measure(arch: str, options: argparse.Namespace, engine: Engine) -> dict[str, Any]:
    """Measure one architecture; its features are as wide as it gives them."""
    from torch.utils.flop_counter import FlopCounterMode

    height, width = options.size
    settings = ModelSettings(arch=arch, weights="none")
    network = build_network(settings, 1, engine, (height, width))
    drawn = np.random.default_rng(0)
    shape = (options.batch, height, width, 3)
    pixels = torch.from_numpy(drawn.integers(0, 256, shape, dtype=np.uint8)).to(engine.device)
    labels = np.arange(options.batch) % CLUSTERS
    counter = FlopCounterMode(display=False)
    network.eval()
    with counter, torch.no_grad():
        network(torch.rand((1, 3, height, width), device=engine.device))
    memory = ClusterMemory(
        centroids_of(torch.randn(options.batch, network.dim, device=engine.device), labels)
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-5, momentum=0.9, fused=True)
    steps = 2

    def train() -> None:
        train_epoch(
            network,
            optimizer,
            pixels,
            [[Part(0, np.arange(options.batch), labels)]] * steps,
            [memory],
            Augmentation(height, width, pad=3),
            torch.Generator(engine.device).manual_seed(1),
            engine=engine,
            task=Task(),
            check=lambda: None,
        )

    def embed() -> None:
        extract(network, pixels, batch_size=options.batch, device=engine.device, precision=engine.precision)

    step, step_busy = best(train, engine.device, options.repeat)
    extraction, extraction_busy = best(embed, engine.device, options.repeat)
    return {
        "network": arch,
        "features": network.dim,
        "parameters, M": sum(value.numel() for value in network.parameters()) / 1e6,
        "operations, G": counter.get_total_flops() / 1e9,
        "step, ms": 1e3 * step / steps,
        "processor, ms": 1e3 * step_busy / steps,
        "extraction, images/s": options.batch / extraction,
        "per processor second": options.batch / extraction_busy,
    }


def show(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print rows of figures as Markdown, each as it comes."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if not found:
            print("| " + " | ".join(row) + " |\n| --- |" + " ---: |" * (len(row) - 1))
        cells = [
            f"{value:,.0f}" if isinstance(value, float) and value >= 100 else
            f"{value:.3g}" if isinstance(value, float) else f"{value}"
            for value in row.values()
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |", flush=True)
        found.append(row)
    return found


def train_on_a_world(arch: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train `camera-aware` with ``arch`` from random weights; gives its last epoch and its retrieval."""
    from icsr_cli import config, datasets
    from icsr_cli.recipes.preparation import prepare_synthetic
    from icsr_cli.recipes.training import Workplace, measure, run_global_stage
    from icsr_cli.runs import create
    from icsr_cli.synthesis import World

    given = {"arch": arch, "weights": "none", "stripes": 1 if arch.startswith("timm:") else 4}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dials = {name: json.loads(value) for name, value in (dial.split("=", 1) for dial in options.dial)}
        prepare_synthetic(World.preset(options.preset, seed=11, **dials), folder / "data", workers=1)
        data = datasets.load("synthetic", folder / "data")
        changed = {f"global.model.{key}": value for key, value in given.items()}
        settings = config.load(
            "synthetic", method="camera-aware", options=changed, assignments=options.assignments
        )
        workplace = Workplace(folder / "data", options.device, Progress())
        run = create(folder / "runs", "synthetic", "global")
        started = time.perf_counter()
        network = run_global_stage(data, settings, run, workplace)
        seconds = time.perf_counter() - started
        found = measure(network, data, settings, workplace).as_dict()["plain"]
        last = run.metrics()[-1]
    return {
        "network": arch,
        "epochs": settings.global_.epochs,
        "clusters": last["clusters"],
        "mAP": 100 * found["mAP"],
        "Rank-1": 100 * found["rank_1"],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", help="some, with commas between them, instead of the ten")
    parser.add_argument("--size", default="64x32", help="height x width of the images")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device")
    parser.add_argument("--precision", default="fp32", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--train", metavar="ARCH")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--dial", action="append", default=[], metavar="NAME=VALUE", help="change the world")
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.size = tuple(int(edge) for edge in options.size.split("x"))
    if options.train:
        rows = show([train_on_a_world(options.train, options)])
    else:
        engine = choose_engine(options.device, options.precision)
        chosen = options.arch.split(",") if options.arch else ARCHITECTURES
        print(
            f"{engine.device}, {engine.precision}, {torch.get_num_threads()} threads, batches of "
            f"{options.batch} images of {options.size[0]} x {options.size[1]}\n"
        )
        rows = show(measure(arch, options, engine) for arch in chosen)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
