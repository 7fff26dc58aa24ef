"""``icsr search``: ranks a folder of crops for pictures of people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icsr_cli.cli import options
from icsr_cli.cli.console import make_progress, print_json, print_records, say
from icsr_cli.errors import counted

if TYPE_CHECKING:
    from icsr_cli.recipes.search import Match, QueryAnswers, SearchResult
    from icsr_cli.reports.ranking_picture import RankingRow


def search(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Pictures of people to look for.")],
    gallery: Annotated[
        Path, typer.Option("--gallery", "-g", help="Folder of crops to look in, and folders below.")
    ],
    network: options.Network = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Answers per picture.")] = 10,
    max_distance: Annotated[
        float | None,
        typer.Option(
            "--max-distance",
            min=0,
            max=2,
            help="Show no answer farther than this; icsr eval prints thresholds.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where the picture of the ranking goes (.png, .jpg, .webp); if left out a new ranking.png "
            "here, none with --json.",
        ),
    ] = None,
    pattern: options.Pattern = None,
    across_cameras: Annotated[
        bool, typer.Option("--across-cameras", help="Leave out gallery images of the picture's own camera.")
    ] = False,
    debias: options.Debias = "none",
    height: options.Height = None,
    width: options.Width = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep the gallery's features in its folder .icsr.")
    ] = True,
    precision: options.Precision = None,
    device: options.Device = None,
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Rank the images of a folder by how much they look like the same person: a table and a picture."""
    from icsr_cli.datasets.scan import image_files
    from icsr_cli.recipes.debiasing import debiasing
    from icsr_cli.recipes.gallery import open_embedder
    from icsr_cli.recipes.search import search as search_gallery
    from icsr_cli.reports.ranking_picture import picture_format, write_ranking_picture

    if out is not None:
        picture_format(out)  # before anything is computed
        looked_in = image_files(gallery, recursive=True) if out.exists() and gallery.is_dir() else []
        options.check_out(out, "--out", reads=[*images, *(gallery / path for path in looked_in)])
    progress = make_progress(quiet, as_json)
    embedder = open_embedder(network, runs_root, device, precision, progress, height=height, width=width)
    found = search_gallery(
        images,
        gallery,
        embedder,
        progress,
        top=top,
        pattern=pattern,
        across_cameras=across_cameras,
        debias=debiasing(debias, embedder.weights, embedder.size),
        keep=cache,
        farthest=max_distance,
    )
    _warn(found, progress.warn)
    picture = out if out is not None or as_json else _new_name()
    if not as_json:
        _show(found)
    if picture is not None:  # after the answers, and before JSON names it: it may be too large
        write_ranking_picture(picture, [_row(answers, gallery) for answers in found.queries])
    if as_json:
        print_json({"network": embedder.weights, "picture": picture, **asdict(found)})
    elif picture is not None:
        say(f"Written to {picture}", whole=True)


def _warn(found: SearchResult, warn: Callable[[str], None]) -> None:
    if found.unreadable:
        first = found.unreadable[0]
        warn(
            f"{len(found.unreadable):,} of the gallery's images cannot be read, such as "
            f"{first.path}: {first.reason}"
        )
    for answers in found.queries:
        if not answers.compared:
            warn(f"Nothing in the gallery could be an answer to {answers.query}.")


def _new_name() -> Path:
    """Give a file name in this folder that is not taken: ranking.png, ranking-2.png, ..."""
    names = chain(["ranking.png"], (f"ranking-{number}.png" for number in count(2)))
    return next(path for path in map(Path, names) if not path.exists())


def _show(found: SearchResult) -> None:
    images = counted(found.images, "image")
    say(f"Gallery: {found.gallery}, {images}, features of {found.reused:,} known before")
    for answers in found.queries:
        if not answers.matches:
            say(f"{_title(answers)}: no match")
        rows = [
            {"rank": one.rank, "image": one.path, "camera": one.camera, "identity": one.identity}
            | {"distance": f"{one.distance:.3f}"}
            for one in answers.matches
        ]
        print_records(_title(answers), rows)


def _title(answers: QueryAnswers) -> str:
    camera = f" (camera {answers.camera})" if answers.camera is not None else ""
    return f"{answers.query}{camera}, {counted(answers.compared, 'image')} compared"


def _row(answers: QueryAnswers, gallery: Path) -> RankingRow:
    from icsr_cli.reports.ranking_picture import Crop

    def lines(first: str, of: QueryAnswers | Match) -> tuple[str, ...]:
        facts = (("camera", of.camera), ("id", of.identity))
        return (first, *(f"{name} {value}" for name, value in facts if value is not None))

    def crop(match: Match) -> Crop:
        known = None not in (answers.identity, match.identity)
        right = answers.identity == match.identity if known else None
        text = lines(f"{match.rank}.  {match.distance:.3f}", match)
        return Crop(gallery / match.path, match.path, text, right)

    query = Crop(
        answers.query, str(answers.query), lines("query" if answers.matches else "no match", answers)
    )
    return [query, *map(crop, answers.matches)]
