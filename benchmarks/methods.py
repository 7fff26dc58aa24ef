"""What each part of the methods is worth on the synthetic data.

Every method trains the same network with the settings of the synthetic data on the same worlds, for as
many steps, and is measured on people that training never saw. A world is a seed: it draws other people; the
cameras stay the same. Prints one line per method and world, then a table with the mean over the worlds, its
standard error, and the mean difference to plain clustering, paired by world, with its own.

    python benchmarks/methods.py --preset default,hard,city --seeds 11,12,13 --jobs 2 --out methods.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from icsr_cli.types import NO_CLUSTER, UNKNOWN_IDENTITY, DoubleArray

#: A network per camera: five cameras take 1.5 times the steps of the shared one.
PER_CAMERA = {"cam.network": "per-camera", "cam.iters": 12, "global.model.weights": "none"}
ONE_STAGE = {"global.epochs": 26, "global.optimizer.step_size": 18}
#: A proxy for each cluster and camera beside the clusters.
PROXIES: list[dict[str, Any]] = [
    {"method": "clusters", "weight": 0.5},
    {"method": "camera-proxies", "temperature": 0.05, "momentum": 0.1},
]
PARTS: dict[str, dict[str, Any]] = {
    "normalise": {"global.normalise": "full"},
    "label-norm": {"global.label_norm": "camera"},
    "camera-jaccard": {"global.distance": {"method": "camera-jaccard"}},
    "single-camera": {"global.refiners": ["single-camera"]},
    "proxies": {"global.memory": PROXIES},
    "resting": {"global.sampler.share": 0.5, "global.sampler.passes": 5},
    "singles": {"global.memory": {"method": "clusters", "singles": True}},
}
#: ``single-camera`` and ``singles`` are no parts of ``camera-aware``: the lines "with" have them.
WITHOUT: dict[str, dict[str, Any]] = {
    "label-norm": {"global.label_norm": "running"},
    "normalise": {"global.normalise": "none"},
    "camera-jaccard": {"global.distance": {"method": "jaccard", "k1": 20}},
    "single-camera": {"global.refiners": []},
    "proxies": {"global.memory": {"method": "clusters"}},
    "resting": {"global.sampler": "identity"},
}
#: Where local labels come from, anew in each epoch: the renderer's tracks, or clusters of each camera.
LOCAL = {
    "tracks": {"global.local": "tracks"},
    "clusters": {"global.local": {"method": "average-linkage", "images_per_cluster": "auto"}},
}
#: Clusters of each camera by the cosine, anew in each epoch; no global cluster may hold two of one camera.
CANNOT_LINK = {**LOCAL["clusters"], "global.local_distance": "cosine", "global.refiners": ["cannot-link"]}
TRUTH = {"global.clusterer": {"method": "true-identities"}, "global.refiners": []}


@dataclass(frozen=True)
class Method:
    """How one line of the table is made: settings of a method, and what is changed of them."""

    title: str
    method: str = "cluster-contrast"
    options: dict[str, Any] = field(default_factory=dict)


METHODS = {
    "untrained": Method("Untrained network"),
    "histogram": Method("Colour histogram, normalised per camera"),
    "plain": Method("Plain clustering"),
    "icsr-per-camera": Method("ICSR, a network per camera", "icsr", {**PER_CAMERA, **ONE_STAGE}),
    "icsr-start": Method("ICSR's shared network, before the global stage", "icsr"),
    "icsr-plain": Method("ICSR's shared start, nothing thrown out", "icsr", {"global.refiners": []}),
    "icsr": Method("ICSR, shared network", "icsr"),
    "icsr-cannot-link": Method("ICSR's shared start, cannot-link", "icsr", CANNOT_LINK),
    "icsr-tracks": Method("ICSR, local clusters of tracks", "icsr", {"cam.clusterer": "tracks"}),
    "centre": Method("plain + means taken off", options={"global.normalise": "centre"}),
    **{name: Method(f"plain + {name}", options=changed) for name, changed in PARTS.items()},
    "camera-aware": Method("camera-aware", "camera-aware"),
    **{
        f"without-{name}": Method(f"camera-aware without {name}", "camera-aware", changed)
        for name, changed in WITHOUT.items()
    },
    **{f"plain-{name}": Method(f"plain + local {name}", options=own) for name, own in LOCAL.items()},
    **{
        f"with-{name}": Method(f"camera-aware + local {name}", "camera-aware", own)
        for name, own in LOCAL.items()
    },
    "plain-cannot-link": Method("plain + cannot-link", options=CANNOT_LINK),
    "with-cannot-link": Method("camera-aware + cannot-link", "camera-aware", CANNOT_LINK),
    "with-single-camera": Method("camera-aware + single-camera", "camera-aware", PARTS["single-camera"]),
    "with-singles": Method(
        "camera-aware + singles",
        "camera-aware",
        {"global.memory": [own | {"singles": True} for own in PROXIES]},
    ),
    "two-stages": Method(
        "camera-aware from ICSR's shared start",
        "camera-aware",
        {"global.model.weights": "cam", "global.epochs": 14, "global.optimizer.step_size": 10},
    ),
    "supervised": Method("Supervised (true identities)", options=TRUTH),
    "supervised-proxies": Method("Supervised, with camera proxies", options={**TRUTH, **PARTS["proxies"]}),
}
#: Methods that begin from, or take labels of, one cam stage; they run in one process.
SHARED = ("icsr-start", "icsr-plain", "icsr", "icsr-cannot-link", "two-stages")
#: Methods with a cam stage of their own.
OWN_CAM = ("icsr-per-camera", "icsr-tracks")


def seconds_now() -> DoubleArray:
    """Read the clock, and that of the processor; they differ where several things run at once: (2,)."""
    return np.array([time.perf_counter(), time.process_time()])


class World:
    """One synthetic world on disk, and what was trained on it; cam stages are trained once."""

    def __init__(
        self, folder: Path, preset: str, seed: int, assignments: Sequence[str], dials: Sequence[str]
    ) -> None:
        from icsr_cli import datasets
        from icsr_cli.choices import load_plugin
        from icsr_cli.progress import Progress
        from icsr_cli.recipes.preparation import prepare_synthetic
        from icsr_cli.recipes.training import Workplace
        from icsr_cli.synthesis import World as Dials

        self.folder, self.seed, self.assignments = folder, seed, assignments
        changed = {name: json.loads(value) for name, value in (dial.split("=", 1) for dial in dials)}
        prepare_synthetic(Dials.preset(preset, seed=seed, **changed), folder / "data", workers=1)
        self.dataset = datasets.load("synthetic", folder / "data")
        self.workplace = Workplace(folder / "data", None, Progress())
        self.cam_runs: dict[str, tuple[Any, DoubleArray]] = {}
        truth = folder / "true_identities.npy"
        np.save(truth, true_clusters(self.dataset.train.identities))
        plugin = folder / "true_identities.py"
        plugin.write_text(SUPERVISED.format(path=str(truth)), encoding="utf-8")
        load_plugin(plugin)

    def wish(self, method: Method, name: str) -> Any:
        """Say what is wanted of a run."""
        from icsr_cli.recipes.wish import Wish

        options = {"seed": self.seed, **method.options}
        return Wish(
            self.folder / "runs",
            method.method,
            options=options,
            assignments=self.assignments,
            name=name,
            local=self.cam_runs[name][0].path if name in self.cam_runs else None,
        )

    def settings(self, method: Method) -> Any:
        """Resolve the settings of a method on the synthetic data."""
        from icsr_cli.progress import Progress
        from icsr_cli.recipes.wish import resolve

        return resolve(self.dataset, self.wish(method, ""), Progress())

    def cam(self, key: str) -> tuple[Any, DoubleArray]:
        """Give the run of the cam stage of a method, and the time it took."""
        from icsr_cli.recipes import opening
        from icsr_cli.recipes.training import run_cam_stage

        name = key if key in OWN_CAM else "icsr"
        if name not in self.cam_runs:
            started = seconds_now()
            wish = self.wish(METHODS[name], name)
            run, settings = opening.start(self.dataset, "cam", wish, self.workplace.progress)
            run_cam_stage(self.dataset, settings, run, self.workplace)
            self.cam_runs[name] = run, seconds_now() - started
        return self.cam_runs[name]

    def score(self, network: Any, method: Method) -> dict[str, float]:
        """Measure retrieval on the test people, at the image size of the method's settings.

        ``mAP`` and ``rank_1`` are by the features alone. Beside them the mAP where what each camera adds is
        taken off, as all test images tell (``debiased``) or the training images (``debiased_stored``), and
        after re-ranking by k-reciprocal (``reranked``) and by camera-aware neighbours (``camera``).
        """
        from icsr_cli.recipes.debiasing import StoredStatistics
        from icsr_cli.recipes.evaluation import BY_CAMERA, RERANKED, Embedder, evaluate
        from icsr_cli.recipes.steps import choose_engine

        settings, engine = self.settings(method), choose_engine(None, "fp32")
        place = self.workplace.data_root, engine, self.workplace.progress
        embedder = Embedder(network, self.dataset, settings.image, settings.evaluation, *place)
        train = embedder.embed_parts([("train", embedder.pixels("train"))])["train"]
        stored = StoredStatistics.of(train, self.dataset.train.cameras, self.dataset, "full")
        found = evaluate(embedder, ways=(RERANKED, BY_CAMERA)).rankings
        return {
            "mAP": found["plain"].mAP,
            "rank_1": found["plain"].rank(1),
            "debiased": evaluate(embedder, debias="full").plain.mAP,
            "debiased_stored": evaluate(embedder, debias=stored).plain.mAP,
            **{way: found[way].mAP for way in (RERANKED, BY_CAMERA)},
        }


def true_clusters(identities: Any) -> Any:
    """Give the identities as clusters from 0, int64 (n,); images of nobody known are noise."""
    known = identities != UNKNOWN_IDENTITY
    labels = np.full(len(identities), NO_CLUSTER)
    labels[known] = np.unique(identities[known], return_inverse=True)[1]
    return labels


#: The truth as a clusterer: the supervised bound runs through the same loop as everything else.
SUPERVISED = '''"""True identities as clusters."""
import numpy as np

from icsr_cli import choices


class Options(choices.Options):
    """Nothing to choose."""


def cluster(evidence, options):
    return np.load({path!r})
'''


def untrained(world: World) -> Any:
    """Give the network as it is drawn."""
    from icsr_cli.recipes.steps import build_network, choose_engine, seed_of

    model = world.settings(METHODS["plain"]).global_.model
    return build_network(model, seed_of(world.seed, 1, 0), choose_engine(None, "fp32"))


def histogram(world: World) -> dict[str, float]:
    """Rank by stripes of colours."""
    from colours import colour_features

    from icsr_cli.metrics import rank
    from icsr_cli.recipes.evaluation import load_pixels
    from icsr_cli.recipes.steps import choose_engine

    settings, engine = world.settings(METHODS["plain"]), choose_engine("cpu", "fp32")
    splits = [world.dataset.splits[name] for name in ("query", "gallery")]
    place = world.folder / "data", engine, world.workplace.progress
    pixels = [load_pixels(world.dataset, part, settings.image, *place) for part in ("query", "gallery")]
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


def trained(world: World, key: str) -> tuple[Any, dict[str, Any]]:
    """Run the stages of a method; gives the network and what is to be said of its labels."""
    from dataclasses import replace

    from icsr_cli.models import open_model
    from icsr_cli.recipes import opening
    from icsr_cli.recipes.training import run_global_stage

    figures: dict[str, Any] = {}
    wish = world.wish(METHODS[key], key)
    if key in (*SHARED, *OWN_CAM):
        cam, seconds = world.cam(key)
        figures |= {"cam_seconds": float(seconds[0]), "local_nmi": cam.metrics()[-1]["nmi"]}
        if "global.local" not in METHODS[key].options:  # then its network alone is wanted, the newest
            wish = replace(wish, local=cam.path)
        if key == "icsr-start":
            return open_model(cam.path / "last.safetensors"), figures
    run, settings = opening.start(world.dataset, "global", wish, world.workplace.progress)
    network = run_global_stage(world.dataset, settings, run, world.workplace)
    last = run.metrics()[-1]
    figures |= {"clusters": last["clusters"], "nmi": last["quality"]["refined"]["nmi"]}
    own = last["quality"].get("local", {})
    figures |= {f"local_{name}": own[name] for name in own.keys() & {"nmi", "pairwise_f"}}
    return network, figures


def measure(job: tuple[str, int, str, tuple[str, ...], tuple[str, ...], int, str]) -> list[dict[str, Any]]:
    """Measure the methods on one world, in this process."""
    preset, seed, keys, assignments, dials, threads, parent = job
    import torch

    torch.set_num_threads(threads)
    lines = []
    special: dict[str, Callable[[World], Any]] = {"untrained": untrained}
    with tempfile.TemporaryDirectory(dir=parent or None) as name:
        world = World(Path(name), preset, seed, assignments, dials)
        for key in keys.split(","):
            started, before = seconds_now(), set(world.cam_runs)
            figures: dict[str, Any] = {}
            if key == "histogram":
                scores = histogram(world)
                seconds = seconds_now() - started
            else:
                network, figures = (special[key](world), {}) if key in special else trained(world, key)
                seconds = seconds_now() - started
                scores = world.score(network, METHODS[key])
            if key in SHARED and "icsr" in before:  # trained for an earlier method: its time counts here too
                seconds = seconds + world.cam_runs["icsr"][1]
            times = dict(zip(("seconds", "cpu_seconds"), seconds.tolist(), strict=True))
            line = {"preset": preset, "seed": seed, "method": key, **scores, **figures, **times}
            print(json.dumps(line), flush=True)
            lines.append(line)
    return lines


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Give the mean over the worlds, its standard error, the difference to plain clustering, the time."""
    seeds = sorted({line["seed"] for line in lines})
    head = ["method", "mAP, mean", "less plain", *(f"world {seed}" for seed in seeds)]
    head += ["Rank-1", "label NMI", "CPU seconds"]
    rows = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    by_method = {key: {line["seed"]: line for line in lines if line["method"] == key} for key in METHODS}
    for key, method in METHODS.items():
        own = by_method[key]
        if not own:
            continue
        shared = [seed for seed in own if seed in by_method["plain"]]
        less = [100 * (own[seed]["mAP"] - by_method["plain"][seed]["mAP"]) for seed in shared]
        nmi = [line["nmi"] for line in own.values() if "nmi" in line]
        cells = [
            method.title,
            with_error([100 * line["mAP"] for line in own.values()]),
            with_error(less) if less and key != "plain" else "-",
            *(f"{100 * own[seed]['mAP']:.1f}" if seed in own else "-" for seed in seeds),
            f"{100 * np.mean([line['rank_1'] for line in own.values()]):.1f}",
            f"{np.mean(nmi):.3f}" if nmi else "-",
            f"{np.mean([line['cpu_seconds'] for line in own.values()]):.0f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def with_error(values: Sequence[float]) -> str:
    """Give the mean, and its standard error where there are several values."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="default", help="one or more of the presets, e.g. default,hard")
    parser.add_argument("--seeds", default="1,2,3", help="worlds")
    parser.add_argument("--methods", default=",".join(METHODS), help="which lines of the table")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--dial", action="append", default=[], metavar="NAME=VALUE", help="change the world")
    parser.add_argument("--jobs", type=int, default=1, help="worlds at a time, one process each")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--folder", default="", help="where the worlds are rendered; a temporary folder")
    parser.add_argument("--out", type=Path, help="write the lines as JSON")
    options = parser.parse_args()
    if options.folder:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
    wanted = options.methods.split(",")
    unknown = [key for key in wanted if key not in METHODS]
    if unknown:
        parser.error(f"no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    shared = ",".join(key for key in wanted if key in SHARED)
    groups = [shared, *(key for key in wanted if key not in SHARED)]
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
