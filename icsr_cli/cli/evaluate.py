"""``icsr eval``: retrieval figures of a network on the query and gallery images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icsr_cli.cli.options import Assignments, Config, DataRoot, DatasetName, Device, Json, Quiet, RunsRoot

if TYPE_CHECKING:
    from icsr_cli.recipes.evaluation import CameraRankings, Evaluation


def evaluate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="Weights (.safetensors, .pth.tar) or a run; the newest run if left out."),
    ] = None,
    dataset: DatasetName = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Takes the network of CHECKPOINT, or of the newest run (the default too)."
        ),
    ] = False,
    arch: Annotated[
        str | None,
        typer.Option("-a", "--arch", help="Network of the weights; read from the file if left out."),
    ] = None,
    height: Annotated[int | None, typer.Option("--height", help="Height of the images, in pixels.")] = None,
    width: Annotated[int | None, typer.Option("--width", help="Width of the images, in pixels.")] = None,
    batch_size: Annotated[int | None, typer.Option("-b", "--batch-size", help="Images per step.")] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Also with k-reciprocal re-ranking.")] = False,
    per_camera: Annotated[
        bool, typer.Option("--per-camera", help="Also for each pair of query camera and gallery camera.")
    ] = False,
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16.")] = "auto",
    device: Device = None,
    config: Config = None,
    assignments: Assignments = None,
    data_root: DataRoot = Path("data"),
    runs_root: RunsRoot = Path("runs"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Rank the gallery for every query: mAP, Rank-1/5/10, mINP by the Market-1501 protocol."""
    from icsr_cli.cli.console import make_progress, print_json
    from icsr_cli.cli.options import open_dataset, resolve_settings
    from icsr_cli.recipes.evaluation import evaluate as evaluate_network
    from icsr_cli.recipes.evaluation import open_network
    from icsr_cli.recipes.steps import choose_engine

    progress = make_progress(quiet, as_json)
    data = open_dataset(dataset, data_root, progress)
    options = {"image.height": height, "image.width": width, "evaluation.batch_size": batch_size}
    settings = resolve_settings(data, config, options, assignments)
    engine = choose_engine(device, precision)
    path, network, size = open_network(checkpoint, runs_root, data.name, arch, engine)
    image = settings.image
    if size is not None and height is None and width is None and not config and not assignments:
        image = image.model_copy(update={"height": size[0], "width": size[1]})
    progress.note(f"Network: {path} ({network.arch}, {network.dim} features)")
    found = evaluate_network(
        network,
        data,
        image,
        settings.evaluation,
        folder=data_root,
        engine=engine,
        progress=progress,
        reranking=rerank,
        per_camera=per_camera,
    )
    if as_json:
        by_camera = {"per_camera": found.cameras_as_dict(data.camera_names)} if per_camera else {}
        print_json({"dataset": data.name, "network": str(path), **found.as_dict(), **by_camera})
        return
    show(found)
    for title, rankings in (
        ("features", found.plain_by_camera),
        ("with re-ranking", found.reranked_by_camera),
    ):
        if rankings is not None:
            _show_cameras(title, rankings, data.camera_names)


def show(found: Evaluation, title: str = "Retrieval (%)") -> None:
    """Print the figures as a table, in per cent."""
    from icsr_cli.cli.console import print_table

    figures = found.as_dict()
    names = {"plain": "features", "reranked": "with re-ranking"}
    rows = [[names[key], *percentages(values)] for key, values in figures.items()]
    print_table(
        title,
        ["", *PERCENTAGES.values(), "queries"],
        [[*row, figures[key]["queries"]] for row, key in zip(rows, figures, strict=True)],
    )


def _show_cameras(title: str, rankings: CameraRankings, names: Sequence[str]) -> None:
    """Print mAP and Rank-1, a row per query camera and a column per gallery camera, as wide as fits."""
    from icsr_cli.cli.console import output, print_table

    rows = sorted({query for query, _ in rankings})
    columns = sorted({gallery for _, gallery in rankings})
    # A column takes the longest of its figures ("100.0") or its name, two blanks and a line.
    width = 3 + max(5, *(len(names[camera]) for camera in columns))
    first = 3 + max(len("query"), *(len(names[camera]) for camera in rows))
    step = max(1, (output().width - 1 - first) // width)
    for figure in ("mAP", "Rank-1"):
        values = {
            pair: 100 * (ranking.mAP if figure == "mAP" else ranking.rank(1))
            for pair, ranking in rankings.items()
        }
        for start in range(0, len(columns), step):
            shown = columns[start : start + step]
            part = f", gallery cameras {start + 1} to {start + len(shown)}" if step < len(columns) else ""
            print_table(
                f"{figure} by camera (%), {title}: a row per query camera{part}",
                ["query", *(names[camera] for camera in shown)],
                [
                    [
                        names[query],
                        *(
                            f"{values[query, camera]:.1f}" if (query, camera) in values else "-"
                            for camera in shown
                        ),
                    ]
                    for query in rows
                ],
            )


PERCENTAGES = {"mAP": "mAP", "rank_1": "Rank-1", "rank_5": "Rank-5", "rank_10": "Rank-10", "mINP": "mINP"}


def percentages(values: dict[str, Any]) -> list[str]:
    """Give the retrieval figures as text in per cent."""
    return [f"{100 * values[key]:.1f}" if key in values else "-" for key in PERCENTAGES]
