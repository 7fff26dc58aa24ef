"""An epoch of the global stage beside a plain loop of the usual sort, and beside what the network must cost.

    python benchmarks/training.py                                    # the synthetic data, small network
    python benchmarks/training.py --preset market1501 --device cuda  # 12,936 images, as published
    python benchmarks/training.py --schedule --device cuda           # both stages, whole, on that data

Both sides train the same network on the same rendered images with the same settings (those of the preset's
settings file), each in a process of its own with the same number of threads: features of every image,
labels, so many steps of training, what is saved. ICSR's side is `train_global_stage` as it is, which tells
a clock of its parts. The plain side is written for the purpose: files decoded by PIL and
augmented by torchvision in the worker processes of a DataLoader, for training and for extraction; fp32,
channels first; Adam as it comes; the memory updated sample by sample within the backward pass; labels by
the dense chain of `benchmarks/labels.py`. The floor is the arithmetic: the operations of the network in all
forward and backward passes of the epoch, divided by the rate of a large matrix product on the same device.

The epoch is the median of epochs without timers, after a warm-up; its processor time, with that of worker
processes, says more than the clock where the machine does other work as well. The parts are of one further
epoch with timers, which on a GPU wait for it before and after each block. Local labels are the true
identities. `--schedule` runs both stages through the command's own functions, and sums up what the runs
wrote down.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from icsr_cli import config, datasets
from icsr_cli.pixels import fetch
from icsr_cli.progress import Progress
from icsr_cli.recipes import steps
from icsr_cli.recipes.evaluation import load_pixels
from icsr_cli.recipes.global_stage import train_global_stage
from icsr_cli.recipes.trainer import Stage
from icsr_cli.threads import usable_cpus

#: Blocks in the order of the table; data handling is what is called pixels.
PARTS = (
    "pixels, training",
    "forward",
    "loss",
    "backward",
    "optimiser",
    "memory update",
    "pixels, extraction",
    "network, extraction",
    "labels",
)
SETTINGS = {"default": "synthetic", "market1501": "market1501"}
PLAIN_CLUSTERERS = ("dbscan", "average-linkage")


class Clock:
    """Seconds per block while it is on; a block within another does not count for the outer one."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on = device, False
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def now(self) -> float:
        """Give the time, once the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of a block to ``part``."""
        if not self.on:
            yield
            return
        started = self.now()
        self._inner.append(0.0)
        yield
        whole = self.now() - started
        self.seconds[part] += whole - self._inner.pop()
        if self._inner:
            self._inner[-1] += whole


class Epochs:
    """Notes when epochs end: one to warm up, ``count`` measured, one with the clock on."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.clock, self.count, self.ends, self.busy = clock, count, [clock.now()], [cpu_seconds()]

    def ended(self) -> None:
        """Note the end of an epoch."""
        self.ends.append(self.clock.now())
        self.busy.append(cpu_seconds())
        self.clock.on = len(self.ends) == self.count + 2

    def result(self) -> dict[str, Any]:
        """Give the median epoch, on the clock and of the processors, and the parts of the last one."""
        lengths, busy = np.diff(self.ends).tolist(), np.diff(self.busy).tolist()
        parts = {part: self.clock.seconds[part] for part in PARTS}
        parts["other"] = lengths[-1] - sum(parts.values())
        return {
            "epoch": statistics.median(lengths[1:-1]),
            "cpu": statistics.median(busy[1:-1]),
            "epochs": lengths,
            "parts": parts,
        }


def cpu_seconds() -> float:
    """Give the processor time of this process and of those it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


# What both sides start from --------------------------------------------------------------------------


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Render and decode once; what is there already is taken as it is."""
    from icsr_cli.recipes.preparation import prepare_synthetic
    from icsr_cli.synthesis import World

    started = time.perf_counter()
    dials: dict[str, Any] = {"seed": 1}
    if options.people:
        dials |= {"train_identities": options.people, "test_identities": 2, "distractors": 0, "junk": 0}
        dials |= dict.fromkeys(("train_images", "test_images", "queries"))
    prepare_synthetic(World.preset(options.preset, **dials), folder / "data")
    data, settings, _ = open_data(options, folder)
    engine = steps.Engine(torch.device("cpu"), "fp32")
    load_pixels(data, "train", settings.image, folder / "data", engine, Progress())
    print(f"rendering and decoding once: {time.perf_counter() - started:.1f} s", flush=True)


def open_data(options: argparse.Namespace, folder: Path) -> tuple[Any, Any, np.ndarray]:
    """Give the data set, the settings and the rows of the training images that take part."""
    data = datasets.load("synthetic", folder / "data")
    name = SETTINGS[options.preset]
    changed = {
        "image.height": options.height,
        "image.width": options.width,
        "precision": options.precision,
        **{f"{stage}.model.arch": options.arch for stage in ("cam", "global")},
        **{f"{stage}.iters": options.iters for stage in ("cam", "global")},
        **{f"{stage}.batch_size": options.batch_size for stage in ("cam", "global")},
        **{f"{stage}.epochs": options.epochs if options.schedule else None for stage in ("cam", "global")},
        **{f"{stage}.model.weights": "none" for stage in ("cam", "global")},
    }
    given = {key: value for key, value in changed.items() if value is not None}
    settings = config.load(name, family=name, method="icsr", options=given, assignments=options.set)
    rows = np.arange(len(data.train))
    if options.images and options.images < len(rows):
        rows = np.sort(np.random.default_rng(0).permutation(len(rows))[: options.images])
    return data, settings, rows


def local_labels(split: Any) -> np.ndarray:
    """Give the true identities, camera by camera: what a perfect cam stage would find."""
    found = np.empty(len(split), dtype=np.int64)
    for camera in np.unique(split.cameras):
        own = split.cameras == camera
        found[own] = np.unique(split.identities[own], return_inverse=True)[1]
    return found


def lengthen(settings: Any, epochs: int) -> Any:
    """Give the settings with so many epochs of the global stage."""
    return settings.model_copy(update={"global_": settings.global_.model_copy(update={"epochs": epochs})})


# ICSR ------------------------------------------------------------------------------------------------


class Watcher(Progress):
    """The engine reports each epoch after it was saved: that is where it ends."""

    def __init__(self, epochs: Epochs) -> None:
        self.epochs = epochs

    def report(self, title: str, figures: Any) -> None:
        """Take the report of an epoch."""
        self.epochs.ended()


def icsr_side(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from icsr_cli.runs import create

    data, settings, rows = open_data(options, folder)
    engine = steps.choose_engine(options.device, settings.precision)
    clock = Clock(engine.device)
    pixels = load_pixels(data, "train", settings.image, folder / "data", engine, Progress())
    split = data.train.select(rows)
    if len(rows) < len(data.train):
        pixels = fetch(pixels, rows)
    epochs = Epochs(clock, options.measure)
    with tempfile.TemporaryDirectory() as runs:
        stage = Stage(
            split,
            pixels,
            lengthen(settings, options.measure + 2),
            create(Path(runs), "synthetic", "global"),
            engine,
            Watcher(epochs),
            local=local_labels(split),
            watch=clock,
        )
        with steps.repeatable(engine.device):  # as the command does
            train_global_stage(stage)
        last = stage.run.metrics()[-1]
    return {
        **epochs.result(),
        "images": len(split),
        "trained": settings.global_.iters * settings.global_.batch_size,
        "precision": engine.precision,
        "clusters": last["clusters"],
        "floor": floor(settings, len(split), engine),
    }


# The floor -------------------------------------------------------------------------------------------


def floor(settings: Any, images: int, engine: steps.Engine) -> dict[str, float]:
    """Give the operations of an epoch, the rate of the device, and their quotient in seconds."""
    from torch.utils.flop_counter import FlopCounterMode

    own, image = settings.global_, settings.image
    network = steps.build_network(own.model, 0, engine).train()
    batch = torch.rand((own.batch_size, 3, image.height, image.width), device=engine.device)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(batch)
    with FlopCounterMode(display=False) as both:
        network(batch).square().sum().backward()
    per_image = forward.get_total_flops() / own.batch_size
    work = own.iters * both.get_total_flops() + images * per_image
    rate = product_rate(engine)
    return {"operations": work, "rate": rate, "seconds": work / rate}


def product_rate(engine: steps.Engine) -> float:
    """Operations per second of a large matrix product: the best of some, in the precision of training."""
    on_gpu = engine.device.type == "cuda"
    size, kind = (8192 if on_gpu else 2048), torch.bfloat16 if engine.precision == "bf16" else torch.float32
    one, other = (torch.rand((size, size), device=engine.device, dtype=kind) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = True  # as in torch's convolutions
    clock, best = Clock(engine.device), float("inf")
    for _ in range(8):
        started = clock.now()
        one @ other
        best = min(best, clock.now() - started)
    return 2 * size**3 / best


# The plain side --------------------------------------------------------------------------------------


class Files(torch.utils.data.Dataset):
    """Images opened, decoded and transformed one at a time, whenever they are asked for."""

    def __init__(self, paths: list[str], transform: Callable[[Any], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB")), row


class Contrast(torch.autograd.Function):
    """Products of features and centroids; the way back also moves the centroids, sample by sample."""

    clock: Clock

    @staticmethod
    def forward(ctx: Any, features: Any, targets: Any, centroids: Any, momentum: float) -> torch.Tensor:
        """Float (b, d) features and (m, d) centroids to (b, m) products."""
        ctx.momentum = momentum
        ctx.save_for_backward(features, targets, centroids)
        return features @ centroids.T

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Give the gradient of the features, and update the memory."""
        features, targets, centroids = ctx.saved_tensors
        result = gradient @ centroids
        with Contrast.clock("memory update"):
            for feature, target in zip(features, targets, strict=True):
                moved = ctx.momentum * centroids[target] + (1 - ctx.momentum) * feature
                centroids[target] = moved / moved.norm()
        return result, None, None, None


def transforms_of(settings: Any) -> tuple[Any, Any]:
    """Give torchvision's pipeline for training, and that for extraction."""
    from torchvision import transforms as t

    size, change = settings.image.size, settings.global_.augmentation
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    resize = t.Resize(size, interpolation=t.InterpolationMode.BICUBIC)
    training = [
        resize,
        t.RandomHorizontalFlip(change.flip),
        t.Pad(change.pad, padding_mode="edge" if change.border == "edge" else "constant"),
        t.RandomCrop(size),
        t.ToTensor(),
        t.Normalize(mean, std),
        t.RandomErasing(change.erase, value=mean),
    ]
    return t.Compose(training), t.Compose([resize, t.ToTensor(), t.Normalize(mean, std)])


class Plain:
    """The usual loop: what it trains, on what, and how it is timed."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        data, self.settings, rows = open_data(options, folder)
        self.split, self.own = data.train.select(rows), self.settings.global_
        self.local, self.workers = local_labels(self.split), options.workers
        engine = steps.choose_engine(options.device, "fp32")
        self.device, self.clock = engine.device, Clock(engine.device)
        Contrast.clock = self.clock
        paths = [f"{self.split.root}/{record.path}" for record in self.split.records]
        training, extraction = transforms_of(self.settings)
        self.training, self.extraction = Files(paths, training), Files(paths, extraction)
        network: nn.Module = steps.build_network(self.own.model, 0, engine)
        self.network = network.to(memory_format=torch.contiguous_format)
        rate = self.own.optimizer
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=rate.lr, weight_decay=rate.weight_decay
        )

    def loader(self, files: Files, **options: Any) -> Any:
        """Give a DataLoader with worker processes of its own, as is usual for each epoch."""
        return torch.utils.data.DataLoader(
            files, num_workers=self.workers, pin_memory=self.device.type == "cuda", **options
        )

    def batches(self, loader: Any, part: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Give the loader's batches on the device; waiting for them is the price of the data."""
        with self.clock(part):
            source = iter(loader)
        while True:
            with self.clock(part):
                found = next(source, None)
                if found is None:
                    return
                batch = found[0].to(self.device, non_blocking=True), found[1]
            yield batch

    def features(self) -> torch.Tensor:
        """Embed every image: float (n, d), on the host."""
        self.network.eval()
        found = []
        loader = self.loader(self.extraction, batch_size=self.settings.evaluation.batch_size)
        with torch.no_grad():
            for images, _ in self.batches(loader, "pixels, extraction"):
                with self.clock("network, extraction"):
                    found.append(self.network(images).cpu())
        return torch.cat(found)

    def labels(self, features: np.ndarray) -> np.ndarray:
        """Dense distances, clusters, silhouette, node scores, refinement: as usually written."""
        from labels import dense_jaccard, dense_knn, dense_linkage, dense_refine, dense_scores
        from sklearn.cluster import DBSCAN
        from sklearn.metrics import silhouette_score

        own, method = self.own, self.own.clusterer
        ranks, squared = dense_knn(features, own.distance.k1)
        distances = dense_jaccard(features, ranks, own.distance.k1, own.distance.k2)
        if method.method == "dbscan":
            model = DBSCAN(**method.model_dump(), metric="precomputed", n_jobs=-1)
            found = model.fit_predict(distances)
        else:
            found = dense_linkage(distances, method.n_clusters)
        np.fill_diagonal(distances, 0)
        kept = found >= 0
        silhouette_score(distances[np.ix_(kept, kept)], found[kept], metric="precomputed")
        near = own.refiners[0].k
        scores = dense_scores(ranks[:, :near], squared[:, :near] / 2)
        refined = found.copy()
        refined[kept] = dense_refine(found[kept], self.local[kept], self.split.cameras[kept], scores[kept])
        return np.where(refined < 0, -1, np.unique(refined, return_inverse=True)[1] - (refined < 0).any())

    def train(self, features: torch.Tensor, labels: np.ndarray) -> None:
        """Take the epoch's steps; a memory of the clusters' means is made first."""
        from icsr_cli.samplers.identity import identity_batches

        own = self.own
        means = [features[torch.from_numpy(labels == c)].mean(0) for c in range(labels.max() + 1)]
        centroids = nn.functional.normalize(torch.stack(means), dim=1).to(self.device)
        with self.clock("pixels, training"):
            rows = identity_batches(
                labels,
                self.split.cameras,
                batch_size=own.batch_size,
                num_instances=own.num_instances,
                iters=own.iters,
                generator=np.random.default_rng(0),
            )
            loader = self.loader(self.training, batch_sampler=rows.tolist())
        self.network.train()
        for images, order in self.batches(loader, "pixels, training"):
            self.step(images, torch.from_numpy(labels)[order].to(self.device), centroids)

    def step(self, images: torch.Tensor, targets: torch.Tensor, centroids: torch.Tensor) -> float:
        """Take one step and give its loss."""
        clock, memory = self.clock, self.own.memory[0]
        with clock("forward"):
            features = self.network(images)
        with clock("loss"):
            products = Contrast.apply(features, targets, centroids, memory.momentum)
            loss = nn.functional.cross_entropy(products / memory.temperature, targets)
        self.optimizer.zero_grad()
        with clock("backward"):
            loss.backward()
        with clock("optimiser"):
            self.optimizer.step()
        return loss.item()

    def epoch(self, folder: Path) -> int:
        """Go through one epoch and give the number of clusters."""
        features = self.features()
        with self.clock("labels"):
            labels = self.labels(features.numpy())
        self.train(features, labels)
        torch.save(self.network.state_dict(), folder / "checkpoint.pth.tar")
        return int(labels.max()) + 1


def plain_side(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    plain = Plain(options, folder)
    epochs = Epochs(plain.clock, options.measure)
    with tempfile.TemporaryDirectory() as kept:
        for _ in range(options.measure + 2):
            clusters = plain.epoch(Path(kept))
            epochs.ended()
    return {**epochs.result(), "clusters": clusters, "precision": "fp32"}


# Measuring -------------------------------------------------------------------------------------------

SIDES = {"icsr": icsr_side, "plain": plain_side}


def measure(side: str, folder: Path) -> dict[str, Any]:
    """Run a side in a process of its own, with the options of this one."""
    result = folder / f"{side}.json"
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the {side} side ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return dict(json.loads(result.read_text(encoding="utf-8")))


def show(options: argparse.Namespace, found: dict[str, Any]) -> None:
    ours, plain = found["icsr"], found.get("plain")
    print(
        f"\n{ours['images']:,} images, {ours['trained']:,} trained on per epoch, {found['arch']} at "
        f"{found['height']} x {found['width']}, {ours['precision']}, {found['device']}, "
        f"{found['threads']} threads, {options.workers} workers of the plain side\n"
    )
    print("| part of an epoch | plain, s | icsr, s | ratio |\n| --- | ---: | ---: | ---: |")
    lines = [(part, plain and plain["parts"][part], ours["parts"][part]) for part in (*PARTS, "other")]
    totals = [
        (title, plain and plain[key], ours[key])
        for title, key in (("epoch", "epoch"), ("epoch, processor time", "cpu"))
    ]
    for part, slow, fast in [*lines, *totals]:
        ratio = f"{slow / fast:.1f}" if plain and fast > 0 else "-"
        print(f"| {part} | {f'{slow:.3f}' if plain else '-'} | {fast:.3f} | {ratio} |")
    print("\n| figure | plain | icsr |\n| --- | ---: | ---: |")
    for figure in found["figures"]["icsr"]:
        cells = [found["figures"].get(side, {}).get(figure) for side in ("plain", "icsr")]
        print(f"| {figure} | " + " | ".join("-" if cell is None else f"{cell:,.2f}" for cell in cells) + " |")
    work, rate = ours["floor"]["operations"], ours["floor"]["rate"]
    print(f"\nThe network's {work / 1e12:.3g} T operations at {rate / 1e9:,.0f} G/s: {work / rate:.3f} s.")


def figures_of(side: dict[str, Any], shared: dict[str, Any]) -> dict[str, float]:
    """Derive what is compared from the parts."""
    parts, whole = side["parts"], sum(side["parts"].values())
    training = sum(parts[name] for name in PARTS[:6])
    extraction = parts["pixels, extraction"] + parts["network, extraction"]
    return {
        "images per second, training": shared["trained"] / training,
        "images per second, extraction": shared["images"] / extraction,
        "data handling, percent of the epoch": 100
        * (parts["pixels, training"] + parts["pixels, extraction"])
        / whole,
        "epoch / floor": side["epoch"] / shared["floor"]["seconds"],
    }


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    prepare(options, folder)
    _, settings, _ = open_data(options, folder)
    if settings.global_.clusterer.method not in PLAIN_CLUSTERERS and not options.icsr_only:
        sys.exit(f"the plain side has {' and '.join(PLAIN_CLUSTERERS)}; take one of them, or --icsr-only")
    found: dict[str, Any] = {
        "arch": settings.global_.model.arch,
        "height": settings.image.height,
        "width": settings.image.width,
        "threads": options.threads,
        "device": device_name(options.device),
    }
    for side in SIDES:
        if side == "icsr" or not options.icsr_only:
            found[side] = measure(side, folder)
    found["figures"] = {side: figures_of(found[side], found["icsr"]) for side in SIDES if side in found}
    show(options, found)
    return found


def device_name(device: str | None) -> str:
    engine = steps.choose_engine(device, "fp32")
    if engine.device.type == "cuda":
        return torch.cuda.get_device_name(engine.device)
    return f"CPU ({platform.processor() or platform.machine()})"


# The whole schedule ----------------------------------------------------------------------------------


def schedule(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both stages as the settings say, on all images; the second refined by the first's labels."""
    from icsr_cli.recipes.training import Workplace, run_cam_stage, run_global_stage
    from icsr_cli.runs import create

    prepare(options, folder)
    data, settings, _ = open_data(options, folder)
    workplace = Workplace(folder / "data", options.device, Progress())
    cam, whole = (create(folder / "runs", "synthetic", stage) for stage in ("cam", "global"))

    def refined() -> None:
        whole.keep_local(cam.labels / "local.csv")
        run_global_stage(data, settings, whole, workplace)

    stages = {"cam": (cam, lambda: run_cam_stage(data, settings, cam, workplace)), "global": (whole, refined)}
    found: dict[str, Any] = {"device": device_name(options.device), "images": len(data.train)}
    print(
        "\n| stage | wall, s | extraction, s | labels, s | training, s | other, s |\n"
        + "| --- |"
        + " ---: |" * 5
    )
    for stage, (run, work) in stages.items():
        started = time.perf_counter()
        work()
        wall = time.perf_counter() - started
        lines = [line["seconds"] for line in run.metrics()]
        parts = {part: sum(line[part] for line in lines) for part in ("extraction", "labels", "training")}
        parts["other"] = wall - sum(parts.values())
        found[stage] = {"wall": wall, **parts, "epochs": len(lines)}
        print(f"| {stage} | {wall:,.1f} | " + " | ".join(f"{value:,.1f}" for value in parts.values()) + " |")
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--preset", choices=tuple(SETTINGS), help="world and settings; default, or market1501"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1; the first GPU if left out, else the CPU")
    parser.add_argument("--arch", help="network; that of the settings if left out, as are those below")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), help="of icsr; plain is fp32")
    parser.add_argument("--iters", type=int, help="steps per epoch")
    parser.add_argument("--people", type=int, help="only so many people to train on are rendered")
    parser.add_argument("--images", type=int, help="only so many training images, drawn at random")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--measure", type=int, default=3, help="epochs measured, beside two others")
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="of torch, on either side")
    parser.add_argument("--workers", type=int, default=usable_cpus(), help="of the plain side's DataLoader")
    parser.add_argument("--icsr-only", action="store_true", help="leave the plain side out")
    parser.add_argument("--schedule", action="store_true", help="both stages, whole, and nothing else")
    parser.add_argument("--epochs", type=int, help="with --schedule: epochs of either stage")
    parser.add_argument("--keep", type=Path, help="folder for the rendered images, kept for the next time")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.preset = options.preset or ("market1501" if options.schedule else "default")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.side:
        found = SIDES[options.side](options, options.folder)
        (options.folder / f"{options.side}.json").write_text(json.dumps(found), encoding="utf-8")
        return
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        found = (schedule if options.schedule else compare)(options, folder)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
