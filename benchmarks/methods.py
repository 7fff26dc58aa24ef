"""What each part of the method is worth on the synthetic data.

Every method trains the same network with the same settings (configs/synthetic.yaml) on the same worlds,
and is measured on people that training never saw. A world is a seed: it draws other people; the cameras
stay the same. Prints one line per method and world, then a table with mean and spread.

    python benchmarks/methods.py --preset default,hard --seeds 1,2,3 --jobs 2 --out methods.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

#: Steps of both stages together: every method but `per-camera` trains for as many (within one epoch).
GLOBAL_ONLY = {"global.epochs": 26, "global.optimizer.step_size": 18, "global.model.weights": "none"}
FROM_SHARED = {"global.model.weights": "cam"}
DISCARD, NONE = {"global.refinement.method": "discard"}, {"global.refinement.method": "none"}
#: Five cameras: in all 1.5 times the steps of the shared network.
PER_CAMERA = {"cam.network": "per-camera", "cam.iters": 12}


@dataclass(frozen=True)
class Method:
    """How one line of the table is made; ``cam`` is the cam stage it takes local labels from."""

    title: str
    cam: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


def _method(title: str, cam: str | None, *options: dict[str, Any]) -> Method:
    return Method(title, cam, tuple(item for part in options for item in part.items()))


METHODS = {
    "untrained": Method("Untrained network"),
    "histogram": Method("Colour histogram, normalised per camera"),
    "plain": _method("Plain clustering", None, GLOBAL_ONLY, NONE),
    "per-camera": _method("ICSR, a network per camera", "per-camera", GLOBAL_ONLY, DISCARD),
    "shared-start": Method("Shared network, before the global stage", "shared"),
    "shared-plain": _method("Shared start, plain clustering", "shared", FROM_SHARED, NONE),
    "shared": _method("ICSR, shared network", "shared", FROM_SHARED, DISCARD),
    "supervised": Method("Supervised (true identities)"),
}


#: Methods of one group run in one process; those from one cam stage share it.
GROUPS = (
    ("shared-start", "shared-plain", "shared"),
    ("untrained", "histogram", "plain", "supervised"),
    ("per-camera",),
)


class Seconds(NamedTuple):
    """Time on the clock, and of the processor; they differ where several things run at once."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        """Read both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Seconds) -> Seconds:  # type: ignore[override]
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


class World:
    """One synthetic world on disk, and what was trained on it; cam stages are trained once."""

    def __init__(
        self, folder: Path, preset: str, seed: int, assignments: Sequence[str], dials: Sequence[str]
    ) -> None:
        from icsr_cli import datasets
        from icsr_cli.progress import SilentProgress
        from icsr_cli.recipes.preparation import prepare_synthetic
        from icsr_cli.recipes.training import Workplace
        from icsr_cli.synthesis import World as Dials

        self.folder, self.seed, self.assignments = folder, seed, assignments
        changed = {name: json.loads(value) for name, value in (dial.split("=", 1) for dial in dials)}
        prepare_synthetic(Dials.preset(preset, seed=seed, **changed), folder / "data", workers=1)
        self.dataset = datasets.load("synthetic", folder / "data")
        self.workplace = Workplace(folder / "data", None, SilentProgress())
        self.cam_runs: dict[str, tuple[Any, Seconds]] = {}

    def settings(self, options: dict[str, Any]) -> Any:
        """Resolve the settings of the synthetic data, with ``options`` and what the command line set."""
        from icsr_cli import config

        return config.load(
            "synthetic",
            family="synthetic",
            options={"seed": self.seed, **options},
            assignments=self.assignments,
        )

    def cam(self, network: str) -> tuple[Any, Seconds]:
        """Give the run of the cam stage, and the time it took."""
        from icsr_cli.recipes.training import run_cam_stage
        from icsr_cli.runs import create

        if network not in self.cam_runs:
            started = Seconds.now()
            run = create(self.folder / "runs", "synthetic", "cam", name=network)
            run_cam_stage(
                self.dataset,
                self.settings(PER_CAMERA if network == "per-camera" else {}),
                run,
                self.workplace,
            )
            self.cam_runs[network] = run, Seconds.now() - started
        return self.cam_runs[network]

    def score(self, network: Any) -> dict[str, float]:
        """Measure retrieval on the test people."""
        from icsr_cli.recipes.evaluation import evaluate
        from icsr_cli.recipes.steps import choose_engine

        settings = self.settings({})
        found = evaluate(
            network,
            self.dataset,
            settings.image,
            settings.evaluation,
            folder=self.folder / "data",
            engine=choose_engine(None, settings.precision),
            progress=self.workplace.progress,
        ).plain
        return {"mAP": found.mAP, "rank_1": found.rank(1)}


def untrained(world: World) -> Any:
    """Give the network as it is drawn."""
    from icsr_cli.recipes.steps import build_network, choose_engine, seed_of

    return build_network(world.settings({}).cam.model, seed_of(world.seed, 1, 0), choose_engine(None, "fp32"))


def supervised(world: World) -> Any:
    """Train the same network with a memory of the true identities, for as many steps."""
    import torch
    from icsr_cli.images.sampler import identity_batches

    from icsr_cli.features import extract
    from icsr_cli.progress import SilentTask
    from icsr_cli.recipes import steps
    from icsr_cli.recipes.evaluation import load_pixels

    settings = world.settings(GLOBAL_ONLY)
    own, split = settings.global_, world.dataset.train
    engine = steps.choose_engine(None, settings.precision)
    pixels = load_pixels(
        world.dataset, split, "train", settings.image, world.folder / "data", engine, world.workplace.progress
    )
    labels = np.unique(split.identities, return_inverse=True)[1].astype(np.int64)
    network = steps.build_network(own.model, steps.seed_of(world.seed, 2), engine)
    optimizer, schedule = steps.build_optimizer(network, own.optimizer)
    for epoch in range(own.epochs):
        generator = np.random.default_rng([world.seed, epoch])
        rows = identity_batches(
            labels,
            split.cameras,
            batch_size=own.batch_size,
            num_instances=own.num_instances,
            iters=own.iters,
            generator=generator,
        )
        memory = own.memory
        features = extract(network, pixels, device=engine.device)
        steps.train_epoch(
            network,
            optimizer,
            pixels,
            [[steps.Part(0, batch, labels[batch])] for batch in rows],
            [steps.build_memory(features, labels, memory.temperature, memory.momentum, memory.hard)],
            steps.build_augmentation(settings, own.augmentation),
            torch.Generator(engine.device).manual_seed(epoch),
            engine=engine,
            task=SilentTask(),
            check=lambda: None,
        )
        schedule.step()
    return network


def histogram(world: World) -> dict[str, float]:
    """Rank by stripes of colours."""
    from icsr_cli.metrics import rank
    from icsr_cli.recipes.evaluation import load_pixels
    from icsr_cli.recipes.steps import choose_engine
    from icsr_cli.synthesis.difficulty import colour_features

    settings, engine = world.settings({}), choose_engine("cpu", "fp32")
    splits = [world.dataset.splits[name] for name in ("query", "gallery")]
    pixels = [
        load_pixels(
            world.dataset,
            split,
            name,
            settings.image,
            world.folder / "data",
            engine,
            world.workplace.progress,
        ).numpy()
        for name, split in zip(("query", "gallery"), splits, strict=True)
    ]
    cameras = np.concatenate([split.cameras for split in splits])
    features = colour_features(np.concatenate(pixels), cameras)
    query, gallery = splits
    found = rank(
        features[: len(query)],
        features[len(query) :],
        query.identities,
        gallery.identities,
        query.cameras,
        gallery.cameras,
    )
    return {"mAP": found.mAP, "rank_1": found.rank(1)}


def trained(world: World, key: str, method: Method) -> tuple[Any, dict[str, Any]]:
    """Run the stages of a method; gives the network and what is to be said of its labels."""
    from icsr_cli.models import open_model
    from icsr_cli.recipes.training import run_global_stage
    from icsr_cli.runs import create

    figures: dict[str, Any] = {}
    local = None
    options = dict(method.options)
    if method.cam is not None:
        cam, seconds = world.cam(method.cam)
        local, figures["cam_seconds"] = cam.labels / "local.csv", seconds.wall
        figures["local_nmi"] = cam.metrics()[-1]["nmi"]
        if options.get("global.model.weights") == "cam":
            options["global.model.weights"] = str(cam.path / "last.safetensors")
        if not options:
            return open_model(cam.path / "last.safetensors"), figures
    run = create(world.folder / "runs", "synthetic", "global", name=key)
    network = run_global_stage(world.dataset, world.settings(options), run, world.workplace, local=local)
    last = run.metrics()[-1]
    figures |= {"clusters": last["clusters"], "nmi": last["quality"]["refined"]["nmi"]}
    return network, figures


def measure(job: tuple[str, int, str, tuple[str, ...], tuple[str, ...], int, str]) -> list[dict[str, Any]]:
    """Measure the methods on one world, in this process."""
    preset, seed, keys, assignments, dials, threads, parent = job
    import torch

    torch.set_num_threads(threads)
    lines = []
    with tempfile.TemporaryDirectory(dir=parent or None) as name:
        world = World(Path(name), preset, seed, assignments, dials)
        for key in keys.split(","):
            method = METHODS[key]
            started = Seconds.now()
            before = dict.fromkeys(world.cam_runs)
            figures: dict[str, Any] = {}
            if key == "histogram":
                scores = histogram(world)
            else:
                special: dict[str, Callable[[World], Any]] = {
                    "untrained": untrained,
                    "supervised": supervised,
                }
                if key in special:
                    network = special[key](world)
                else:
                    network, figures = trained(world, key, method)
                scores = world.score(network)
            seconds = Seconds.now() - started
            if method.cam in before:  # trained for an earlier method: its time counts here too
                seconds = seconds + world.cam(method.cam)[1]
            times = {"seconds": seconds.wall, "cpu_seconds": seconds.cpu}
            line = {"preset": preset, "seed": seed, "method": key, **scores, **figures, **times}
            print(json.dumps(line), flush=True)
            lines.append(line)
    return lines


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Give the mean over the worlds, their spread, each world, and the time, as Markdown."""
    seeds = sorted({line["seed"] for line in lines})
    head = ["method", "mAP, mean", "spread", *(f"world {seed}" for seed in seeds)]
    head += ["Rank-1", "label NMI", "seconds", "CPU seconds"]
    rows = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for key, method in METHODS.items():
        own = {line["seed"]: line for line in lines if line["method"] == key}
        if not own:
            continue
        values = [100 * own[seed]["mAP"] for seed in seeds if seed in own]
        names = ("rank_1", "seconds", "cpu_seconds")
        mean = {name: np.mean([line[name] for line in own.values()]) for name in names}
        nmi = [line["nmi"] for line in own.values() if "nmi" in line]
        cells = [
            method.title,
            f"{np.mean(values):.1f}",
            f"{max(values) - min(values):.1f}",
            *(f"{100 * own[seed]['mAP']:.1f}" if seed in own else "-" for seed in seeds),
            f"{100 * mean['rank_1']:.1f}",
            f"{np.mean(nmi):.3f}" if nmi else "-",
            f"{mean['seconds']:.0f}",
            f"{mean['cpu_seconds']:.0f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="default", help="one or more of default, hard, easy")
    parser.add_argument("--seeds", default="1,2,3", help="worlds")
    parser.add_argument("--methods", default=",".join(METHODS), help="which lines of the table")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--dial", action="append", default=[], metavar="NAME=VALUE", help="change the world")
    parser.add_argument("--jobs", type=int, default=1, help="worlds at a time, one process each")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--folder", default="", help="where the worlds are rendered; a temporary folder")
    parser.add_argument("--out", type=Path, help="write the lines as JSON")
    options = parser.parse_args()
    wanted = options.methods.split(",")
    groups = [",".join(key for key in group if key in wanted) for group in GROUPS]
    jobs = [
        (preset, int(seed), keys, tuple(options.set), tuple(options.dial), options.threads, options.folder)
        for preset in options.preset.split(",")
        for keys in groups
        if keys
        for seed in options.seeds.split(",")
    ]
    # Spawned, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        lines = [line for world in pool.map(measure, jobs) for line in world]
    if options.out:
        options.out.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    for preset in options.preset.split(","):
        print(f"\n{preset}\n\n{table([line for line in lines if line['preset'] == preset])}")


if __name__ == "__main__":
    main()
