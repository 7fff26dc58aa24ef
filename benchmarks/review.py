"""What answers about pairs are worth: those that ``icsr labels review`` asks for, against random pairs.

A method is trained on a world; then pairs are chosen, and the identities answer. Prints, for each number of
answers, the quality of the labels that the chain makes of the run's own features, and with ``--train`` the
mAP of a training that obeys the answers: ``anew``, or ``on`` from the run's network for ``--epochs`` more.

    python benchmarks/review.py --preset city --seeds 11,12,13 --method plain --train anew --out review.json
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
from methods import METHODS, Method, World, trained, with_error

RULE, RANDOM = "asked", "random"


def finished(world: World, key: str) -> Any:
    """Give the finished run of a method; it is trained where there is none in the world's folder."""
    from icsr_cli.runs import open_run

    path = world.folder / "runs" / "synthetic" / "global" / key
    if not path.is_dir():
        trained(world, key)
    return open_run(path)


def random_answers(split: Any, count: int, seed: int) -> list[Any]:
    """Answer pairs drawn at random."""
    from icsr_cli.runs.pairs import Answer

    generator, ids, paths = np.random.default_rng(seed), split.identities, split.paths
    rows = [generator.choice(len(split), 2, replace=False).tolist() for _ in range(count)]
    return [Answer(paths[a], paths[b], "same" if ids[a] == ids[b] else "different") for a, b in rows]


def measure(world: World, key: str, numbers: Sequence[int], way: str, epochs: int) -> list[dict[str, Any]]:
    """Measure one world; gives a line for each number of answers and way of choosing."""
    from icsr_cli import config
    from icsr_cli.metrics import judge
    from icsr_cli.recipes.review import open_review, truth_of
    from icsr_cli.recipes.steps import choose_engine

    run = finished(world, key)
    settings = config.load_run(run.path / "settings.yaml")
    engine = choose_engine(None, "fp32")
    place = world.workplace
    review = open_review(run, world.dataset, settings, place.data_root, engine, place.progress)
    answers = {
        RULE: truth_of(review.ask(max(numbers)), review.split),
        RANDOM: random_answers(review.split, max(numbers), world.seed),
    }
    lines = []
    for number in numbers:
        for chosen, given in answers.items():
            if number == 0 and chosen == RANDOM:
                continue
            judged = judge(review.relabel(given[:number]).labels, review.split.identities)
            assert judged is not None
            line = {
                "seed": world.seed,
                "answers": number,
                "chosen": chosen,
                "same": sum(one.answer == "same" for one in given[:number]),
                "pairwise_f": judged.pairwise_f,
                "bcubed_f": judged.bcubed_f,
                "nmi": judged.nmi,
            }
            if way != "no":
                line["mAP"] = train(world, key, run, given[:number], f"{chosen}-{number}", way, epochs)
            print(json.dumps(line), flush=True)
            lines.append(line)
    return lines


def train(
    world: World, key: str, run: Any, answers: Sequence[Any], name: str, way: str, epochs: int
) -> float:
    """Train with answers, anew or on from the run; gives the mAP."""
    from icsr_cli.recipes import opening
    from icsr_cli.recipes.training import run_global_stage
    from icsr_cli.runs.pairs import write_answers

    method = METHODS[key]
    if way == "on":
        more = {"global.model.weights": str(run.path), "global.epochs": epochs}
        method = Method(method.title, method.method, {**method.options, **more})
    file = world.folder / f"{key}-{name}.csv"
    write_answers(file, answers)
    wish = replace(world.wish(method, f"{key}-{way}-{name}"), pairs=file)
    begun, settings = opening.start(world.dataset, "global", wish, world.workplace.progress)
    network = run_global_stage(world.dataset, settings, begun, world.workplace)
    return world.score(network, method)["mAP"]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Give a row for each number of answers, means over the worlds; of mAP also what it is above none."""
    figures = [name for name in ("pairwise_f", "bcubed_f", "nmi", "mAP") if name in lines[0]]
    head = ["answers", "chosen", "of them same", *(name.replace("_", " ") for name in figures), "less none"]
    none = {line["seed"]: line["mAP"] for line in lines if line["answers"] == 0 and "mAP" in line}
    rows = ["| " + " | ".join(head) + " |", "| ---: | --- |" + " ---: |" * (len(head) - 2)]
    for number, chosen in dict.fromkeys((line["answers"], line["chosen"]) for line in lines):
        own = [line for line in lines if (line["answers"], line["chosen"]) == (number, chosen)]
        values = [f"{100 * np.mean([line[name] for line in own]):.1f}" for name in figures]
        same = f"{np.mean([line['same'] for line in own]):.0f}"
        less = [100 * (line["mAP"] - none[line["seed"]]) for line in own if number and line["seed"] in none]
        values.append(with_error(less) if less else "-")
        rows.append("| " + " | ".join([str(number), chosen if number else "-", same, *values]) + " |")
    return "\n".join(rows)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="city", help="the world: default, hard, city")
    parser.add_argument("--seeds", default="11,12,13", help="worlds")
    parser.add_argument("--method", default="plain", choices=sorted(METHODS), help="what is trained first")
    parser.add_argument("--answers", default="0,50,100,200,500", help="numbers of answers")
    parser.add_argument("--train", default="no", choices=("no", "anew", "on"), help="train with the answers")
    parser.add_argument("--epochs", type=int, default=6, help="with --train on: how many")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--dial", action="append", default=[], metavar="NAME=VALUE", help="change the world")
    parser.add_argument("--folder", type=Path, help="where worlds and runs stay; else they are removed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the lines as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in map(int, options.seeds.split(",")):
            folder = (options.folder or Path(temporary)) / f"{options.preset}{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            world = World(folder, options.preset, seed, options.set, options.dial)
            numbers = [int(number) for number in options.answers.split(",")]
            lines += measure(world, options.method, numbers, options.train, options.epochs)
    if options.out:
        options.out.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    print(f"\n{options.preset}, {METHODS[options.method].title}\n\n{table(lines)}")


if __name__ == "__main__":
    main()
