"""How well new images are given to the people that a run knows, and how well those it does not are told.

Of a world's training images some are held back. A method is trained on the others; then the held-back images,
of people that it knows, and the gallery, of people that it has never seen, are new. An assignment is right
where most of the cluster's images show the person; of somebody never seen, where it is to nobody. Prints a
row for each threshold: that of the run's own labels, and those that ``icsr eval`` would store.

    python benchmarks/assign.py --preset city --seeds 11,12,13 --method camera-aware --out assign.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from methods import METHODS, World, trained

from icsr_cli.types import NO_CLUSTER, most_frequent

#: One of so many training images is held back.
HELD_BACK = 5


def measure(world: World, key: str) -> list[dict[str, Any]]:
    """Train on a part of the images, and assign the rest and the gallery."""
    from icsr_cli.labelling.assignment import KnownClusters, assign
    from icsr_cli.recipes.assignment import limits_of
    from icsr_cli.recipes.evaluation import Embedder
    from icsr_cli.recipes.steps import choose_engine
    from icsr_cli.recipes.training import measure as evaluate
    from icsr_cli.runs import open_run, read_labels

    whole = world.dataset
    rows = np.random.default_rng(world.seed).permutation(len(whole.train))
    held, kept = (np.sort(part) for part in np.split(rows, [len(rows) // HELD_BACK]))
    splits = {**whole.splits, "train": whole.train.select(kept), "held": whole.train.select(held)}
    world.dataset = replace(whole, name="held-back", splits=splits)
    network, _ = trained(world, key)
    run = open_run(world.folder / "runs" / "held-back" / "global" / key)
    settings, place = world.settings(METHODS[key]), world.workplace
    engine = choose_engine(None, "fp32")
    embedder = Embedder(
        network, world.dataset, settings.image, settings.evaluation, place.data_root, engine, place.progress
    )
    features = embedder.embed_parts((name, embedder.pixels(name)) for name in ("train", "held", "gallery"))
    labels = read_labels(run.label_files()[-1]).labels
    marks = evaluate(network, world.dataset, settings, place).thresholds
    limits = {
        **limits_of(run, features["train"], labels),
        **{one.name: one.distance for one in marks},
    }
    known = KnownClusters.of(features["train"], labels)
    inside = labels != NO_CLUSTER
    clusters, people, _ = most_frequent(labels[inside], splits["train"].identities[inside])
    person = dict(zip(clusters.tolist(), people.tolist(), strict=True))
    here, never = (assign(features[name], known) for name in ("held", "gallery"))
    strangers = ~np.isin(splits["gallery"].identities, splits["train"].identities)
    lines = []
    for name, farthest in limits.items():
        given = here.within(farthest)
        who = np.array([person.get(cluster, -1) for cluster in given.tolist()])
        line = {
            "seed": world.seed,
            "at": name,
            "distance": farthest,
            "right": float((who == splits["held"].identities).mean()),
            "called_new": float((given < 0).mean()),
            "right_new": float((never.within(farthest)[strangers] < 0).mean()),
            "clusters": len(known.numbers),
        }
        print(json.dumps(line), flush=True)
        lines.append(line)
    return lines


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Give a row for each threshold, means over the worlds, in per cent."""
    head = [
        "threshold",
        "distance",
        "known: right",
        "known: called new",
        "never seen: right (new)",
        "mean of right",
    ]
    rows = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name in dict.fromkeys(line["at"] for line in lines):
        own = [line for line in lines if line["at"] == name]
        distance, right, called, new = (
            np.mean([line[key] for line in own]) for key in ("distance", "right", "called_new", "right_new")
        )
        values = [f"{100 * value:.1f}" for value in (right, called, new, (right + new) / 2)]
        rows.append("| " + " | ".join([name, f"{distance:.3f}", *values]) + " |")
    return "\n".join(rows)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="city", help="the world: default, hard, city")
    parser.add_argument("--seeds", default="11,12,13", help="worlds")
    parser.add_argument("--method", default="camera-aware", choices=sorted(METHODS), help="what is trained")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--dial", action="append", default=[], metavar="NAME=VALUE", help="change the world")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the lines as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = []
    for seed in map(int, options.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            lines += measure(
                World(Path(folder), options.preset, seed, options.set, options.dial), options.method
            )
    if options.out:
        options.out.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    print(f"\n{options.preset}, {METHODS[options.method].title}\n\n{table(lines)}")


if __name__ == "__main__":
    main()
