"""``icsr demo``: the main job, whole, on synthetic data."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import make_progress, print_json, print_records, print_table, say
from icsr_cli.errors import Interrupted, UsageError
from icsr_cli.progress import Progress

if TYPE_CHECKING:
    from icsr_cli.recipes.training import Workplace
    from icsr_cli.recipes.wish import Wish
    from icsr_cli.runs import RunFolder
    from icsr_cli.types import Dataset

#: From the weakest to the strongest.
METHODS = ("cluster-contrast", "icsr", "camera-aware")
#: Smaller images and fewer steps than the synthetic data has by default, so that all three take minutes.
SHORT = {
    "image.height": 48,
    "image.width": 24,
    **{f"{stage}.iters": 12 for stage in ("cam", "global")},
    "cam.epochs": 8,
    "cam.optimizer.step_size": 6,
}
ONE_STAGE = {"global.epochs": 18, "global.optimizer.step_size": 13}
AFTER_CAM = {"global.epochs": 10, "global.optimizer.step_size": 7}


def demo(
    identities: Annotated[
        int, typer.Option("--identities", min=8, help="People to train on, and as many others to test on.")
    ] = 100,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="Only this method, trained in full; may be repeated. All three, shorter, if left out.",
            autocompletion=complete.methods,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the people and of training.")] = 1,
    device: options.Device = None,
    assignments: options.Assignments = None,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Render people, train on them without their names, and measure.

    Plain clustering, ICSR as published, and the strongest method, from random weights. No download, no GPU
    needed: some minutes on two CPU cores. The people it is measured on are others than those it is trained
    on.
    """
    from icsr_cli import config, datasets
    from icsr_cli.recipes.preparation import prepare_synthetic
    from icsr_cli.recipes.training import Workplace
    from icsr_cli.recipes.wish import Wish
    from icsr_cli.synthesis import World

    progress = make_progress(quiet, as_json)
    started = time.perf_counter()
    for method in methods or METHODS:  # what is wrong is found before any is trained
        config.load("demo", method=method, family="synthetic", assignments=assignments or ())
    world = World.preset("default", train_identities=identities, test_identities=identities, seed=seed)
    progress.note(f"Rendering {2 * identities} people under {world.cameras} cameras")
    report = prepare_synthetic(world, data_root, name="demo", progress=progress)
    dataset = datasets.load(report.name, data_root)
    workplace = Workplace(data_root, device, progress)
    typed = partial(options.typed, data_root=data_root, runs_root=runs_root)
    scores: dict[str, dict[str, Any]] = {}
    for method in methods or METHODS:
        # One method alone is trained as icsr train would.
        steps = {} if methods else SHORT | (AFTER_CAM if method == "icsr" else ONE_STAGE)
        told = typed("train", "-d", dataset.name, "--method", method)
        progress.note(f"Training: {method} ({f'in short; in full: {told}' if steps else told})")
        wish = Wish(runs_root, method, options={"seed": seed, **steps}, assignments=tuple(assignments or ()))
        try:
            run = _train_and_measure(dataset, wish, workplace, scores)
        except Interrupted as stopped:  # what training says of --resume is not of this command
            raise Interrupted(
                "Stopped. The same command starts the demo anew; the run under way goes on alone with "
                f"{typed('train', 'cam', '--resume', '-d', dataset.name)}, or global for cam.",
                signal_number=stopped.exit_code - 128,
            ) from None
    _show(scores, run, data_root, time.perf_counter() - started, as_json)


def _train_and_measure(
    dataset: Dataset, wish: Wish, workplace: Workplace, scores: dict[str, dict[str, Any]]
) -> RunFolder:
    """Run the stages of a method; adds retrieval figures to ``scores`` and gives the global run."""
    from icsr_cli.models import open_model
    from icsr_cli.recipes import opening
    from icsr_cli.recipes.steps import build_network, choose_engine, seed_of
    from icsr_cli.recipes.training import measure, run_cam_stage, run_global_stage
    from icsr_cli.recipes.wish import resolve

    settings = resolve(dataset, wish, Progress())
    if "global" not in settings.stages:
        raise UsageError("The demo measures what the global stage makes: leave it among the stages.")

    def score(name: str, network: Any) -> None:
        found = measure(network, dataset, settings, workplace)
        scores[name] = found.as_dict()["plain"]

    if not scores:
        engine = choose_engine(workplace.device, settings.precision)
        score("untrained", build_network(settings.cam.model, seed_of(settings.seed), engine))
    for stage in settings.stages:
        run, own = opening.start(dataset, stage, wish, workplace.progress)
        if stage == "cam":
            run_cam_stage(dataset, own, run, workplace)
            if own.cam.network == "shared":
                score(f"{wish.method}, cam stage", open_model(run.path / "last.safetensors"))
            continue
        network = run_global_stage(dataset, own, run, workplace)
        score(str(wish.method), network)
    return run


def _show(
    scores: dict[str, dict[str, Any]], run: RunFolder, data_root: Path, seconds: float, as_json: bool
) -> None:
    from icsr_cli.cli.evaluate import PERCENTAGES, percentages

    last = run.metrics()[-1]
    counts = {key: last[key] for key in ("clusters", "kept", "noise", "discarded") if key in last}
    quality = last.get("quality", {}).get("refined", {})
    if as_json:
        print_json({"seconds": seconds, "retrieval": scores, "labels": counts | quality, "run": run.path})
        return
    rows = [[name, *percentages(values)] for name, values in scores.items()]
    print_table("Retrieval of unseen people (%)", ["network", *PERCENTAGES.values()], rows)
    row = counts | {key: quality[key] for key in ("pairwise_f", "nmi") if key in quality}
    print_records("Pseudo labels of the last epoch", [row])
    commands = (("labels", "inspect", run.path), ("report", run.path), ("eval", run.path, "--rerank"))
    lines = (f"  {options.typed(*words, data_root=data_root)}" for words in commands)
    say("\n".join((f"{seconds:.0f} s in all. Look closer with:", *lines)), whole=True)
