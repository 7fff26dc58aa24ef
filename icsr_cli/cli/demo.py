"""``icsr demo``: the main job, whole, on synthetic data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icsr_cli.cli.options import Assignments, DataRoot, Device, Json, Quiet, RunsRoot

if TYPE_CHECKING:
    from icsr_cli.config.schema import Settings
    from icsr_cli.recipes.training import Workplace
    from icsr_cli.runs import RunFolder
    from icsr_cli.types import Dataset


def demo(
    identities: Annotated[
        int, typer.Option("--identities", min=8, help="People to train on, and as many others to test on.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the people and of training.")] = 1,
    device: Device = None,
    assignments: Assignments = None,
    data_root: DataRoot = Path("data"),
    runs_root: RunsRoot = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Render people, train within each camera, train across cameras, and measure before and after.

    No download, no GPU needed: some minutes on two CPU cores. The people it is measured on are others than
    those it is trained on.
    """
    from icsr_cli import config, datasets
    from icsr_cli.cli.console import make_progress
    from icsr_cli.recipes.preparation import prepare_synthetic
    from icsr_cli.recipes.training import Workplace
    from icsr_cli.synthesis import World

    progress = make_progress(quiet, as_json)
    started = time.perf_counter()
    world = World.preset("default", train_identities=identities, test_identities=identities, seed=seed)
    progress.note(f"1/5 Rendering {2 * identities} people under {world.cameras} cameras")
    report = prepare_synthetic(world, data_root, name="demo", progress=progress)
    dataset = datasets.load(report.name, data_root)
    settings = config.load(
        dataset.name, family="synthetic", options={"seed": seed}, assignments=assignments or ()
    )
    workplace = Workplace(data_root, device, progress)
    scores, global_run = _train_and_measure(dataset, settings, workplace, runs_root)
    _show(scores, global_run, time.perf_counter() - started, as_json)


def _train_and_measure(
    dataset: Dataset, settings: Settings, workplace: Workplace, runs_root: Path
) -> tuple[dict[str, dict[str, Any]], RunFolder]:
    """Run both stages; gives the retrieval figures before, between and after, and the global run."""
    from icsr_cli.models import open_model
    from icsr_cli.recipes.steps import build_network, choose_engine, seed_of
    from icsr_cli.recipes.training import (
        find_cam_weights,
        measure,
        run_cam_stage,
        run_global_stage,
        start_from_cam,
    )
    from icsr_cli.runs import create

    progress = workplace.progress
    engine = choose_engine(workplace.device, settings.precision)

    def score(network: Any) -> dict[str, Any]:
        found = measure(network.to(engine.device), dataset, settings, workplace, engine)
        figures: dict[str, Any] = found.as_dict()["plain"]
        return figures

    progress.note("2/5 Measuring the untrained network")
    scores = {"untrained": score(build_network(settings.cam.model, seed_of(settings.seed), engine))}
    progress.note("3/5 Training within each camera (icsr train cam)")
    cam = create(runs_root, dataset.name, "cam")
    run_cam_stage(dataset, settings, cam, workplace)
    local = cam.labels / "local.csv"
    if settings.cam.network == "shared":
        scores["after the cam stage"] = score(open_model(find_cam_weights(local)))
    progress.note("4/5 Training across cameras (icsr train global)")
    run = create(runs_root, dataset.name, "global")
    run.update_info(local=str(local))
    if settings.global_.model.weights == "cam":
        settings = start_from_cam(settings, local)
    network = run_global_stage(dataset, settings, run, workplace, local=local)
    progress.note("5/5 Measuring on people that training never saw")
    scores["after the global stage"] = score(network)
    return scores, run


def _show(scores: dict[str, dict[str, Any]], run: RunFolder, seconds: float, as_json: bool) -> None:
    from icsr_cli.cli.console import output, print_json, print_table
    from icsr_cli.cli.evaluate import PERCENTAGES, percentages

    last = run.metrics()[-1]
    labels: dict[str, Any] = {key: last[key] for key in ("clusters", "kept", "discarded", "noise")}
    quality = last["quality"]["refined"]
    if as_json:
        found = {"seconds": seconds, "retrieval": scores, "labels": labels | quality}
        print_json(found | {"run": str(run.path)})
        return
    rows = [[name, *percentages(values)] for name, values in scores.items()]
    print_table("Retrieval of unseen people (%)", ["network", *PERCENTAGES.values()], rows)
    row = labels | {"pairwise F": quality["pairwise_f"], "NMI": quality["nmi"]}
    print_table("Pseudo labels of the last epoch", list(row), [list(row.values())])
    output().print(
        f"{seconds:.0f} s in all. Look closer with:\n"
        f"  icsr labels inspect {run.path}\n"
        f"  icsr report {run.path}\n"
        f"  icsr eval {run.path} -d {run.dataset} --rerank"
    )
