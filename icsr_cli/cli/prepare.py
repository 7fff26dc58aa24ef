"""``icsr prepare``: one command per data set, found by the files that describe them."""

from __future__ import annotations

import os
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from icsr_cli.cli import complete, options
from icsr_cli.cli.console import make_progress
from icsr_cli.cli.help import Commands
from icsr_cli.cli.prepare_tables import show_list, show_preview, show_report, show_verification
from icsr_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from icsr_cli.recipes.preparation import How

_PUBLISHED = Path(__file__).parent.parent / "datasets" / "published"

Source = Annotated[
    Path | None,
    typer.Option(
        "--source", help="Archive (zip, tar, tar.gz, tar.bz2, tar.xz) or folder; looked for if left out."
    ),
]
Size = Annotated[
    str | None, typer.Option("--size", metavar="HxW", help="Size at which pixels are kept, such as 256x128.")
]
StoreForm = Annotated[
    Literal["raw", "jpeg"] | None,
    typer.Option("--store", help="How pixels are kept: raw (the default), or jpeg for less room."),
]
AllowBad = Annotated[bool, typer.Option("--allow-bad", help="Go on with more than 1 % unreadable images.")]
Expansion = Annotated[
    int, typer.Option("--expansion", min=1, help="How many times its size an archive may hold.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes that read images; all CPUs if left out.")
]
TracksWithin = Annotated[
    int | None,
    typer.Option(
        "--tracks-within",
        min=0,
        metavar="FRAMES",
        help="Derive tracks where there are none, by identity: images at most so many frames apart.",
    ),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read everything that is prepared again and check it.")
]


class _Prepare(TyperGroup):
    """Besides the data sets it knows, takes the name of any prepared one for ``--verify``.

    And that of one which a file of the user's own defines, with ``--plugin``.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            if "--verify" in args:
                return super().resolve_command(ctx, ["verify", *args])
            if _names_plugin(args):
                return super().resolve_command(ctx, ["plugin", *args])
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        own = _names_plugin(args) and first.startswith("-") and first not in ("--list", "--help")
        return super().parse_args(ctx, ["plugin", *args] if own else args)


def _names_plugin(args: list[str]) -> bool:
    return any(arg == "--plugin" or arg.startswith("--plugin=") for arg in args)


app = Commands(
    cls=_Prepare,
    invoke_without_command=True,
    help="Prepare a data set: unpack or render it, check it, index it, decode its images once.",
)


@app.callback()
def prepare(
    ctx: typer.Context,
    list_: Annotated[bool, typer.Option("--list", help="Show what is prepared and what could be.")] = False,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", help="With --list: folder of the prepared data sets [env: ICSR_DATA]."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: print JSON.")] = False,
) -> None:
    """Show the list, or leave the work to a command."""
    if ctx.invoked_subcommand is not None:
        if list_ or data_root is not None or as_json:
            raise UsageError(
                "--list stands alone, and --data-root and --json stand after the name of the data set: "
                f"icsr prepare {ctx.invoked_subcommand} --data-root DIR"
            )
        return
    if not list_:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)
    show_list(data_root or Path(os.environ.get("ICSR_DATA") or "data"), as_json)


def published(
    ctx: typer.Context,
    source: Source = None,
    data_root: options.DataRoot = Path("data"),
    size: Size = None,
    store: StoreForm = None,
    allow_bad: AllowBad = False,
    workers: Workers = None,
    expansion: Expansion = 100,
    tracks_within: TracksWithin = None,
    verify: Verify = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Prepare a published data set, the one that the command is called after."""
    name = str(ctx.info_name)
    if verify:
        _verify(ctx, name, data_root, workers, as_json, quiet)
        return
    from icsr_cli.recipes.preparation import prepare as recipe

    progress = make_progress(quiet, as_json)
    how: How = {"store": store or "raw", "allow_bad": allow_bad, "workers": workers, "progress": progress}
    report = recipe(
        name, source, data_root, size=_size(size), expansion=expansion, tracks_within=tracks_within, **how
    )
    show_report(report, progress, data_root, as_json)


for _name in sorted(module.name for module in pkgutil.iter_modules([str(_PUBLISHED)])):
    _words = f"Prepare {_name} from what you downloaded.", f"Example: icsr prepare {_name} --source PATH"
    app.command(_name, help=_words[0], epilog=_words[1])(published)


@app.command(epilog="Example: icsr prepare synthetic --identities 100 --cameras 5 --size 64x32 --seed 1")
def synthetic(
    ctx: typer.Context,
    identities: Annotated[
        str | None,
        typer.Option(
            metavar="N or TRAIN+TEST", help="People for training, and as many others for evaluation."
        ),
    ] = None,
    cameras: Annotated[int | None, typer.Option(help="Cameras.")] = None,
    images: Annotated[
        str | None, typer.Option(metavar="N or FROM-TO", help="Images per person and camera.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Other people; the cameras stay the same.")] = None,
    size: Size = None,
    preset: Annotated[
        str,
        typer.Option(
            help="default, easy, hard, city, separate, metro or market1501.", autocompletion=complete.worlds
        ),
    ] = "default",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="DIAL=VALUE", help="Set any dial, e.g. --set background=1.6."),
    ] = None,
    store: StoreForm = None,
    name: Annotated[str, typer.Option(help="Name of the data set, to keep several.")] = "synthetic",
    data_root: options.DataRoot = Path("data"),
    workers: Workers = None,
    verify: Verify = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Render a data set of pedestrians seen by several cameras: nothing to download."""
    if verify:
        _verify(ctx, name, data_root, workers, as_json, quiet)
        return
    from icsr_cli.config import parse_assignment
    from icsr_cli.recipes.preparation import prepare_synthetic
    from icsr_cli.synthesis import World

    numbers = {"cameras": cameras, "seed": seed}
    dials: dict[str, Any] = {key: value for key, value in numbers.items() if value is not None}
    if identities is not None:
        people = _one_or_two("--identities", identities, "+", "TRAIN+TEST such as 751+750")
        dials["train_identities"], dials["test_identities"] = people
    if images is not None:
        dials["images"] = _one_or_two("--images", images, "-", "FROM-TO such as 2-6")
    if (shape := _size(size)) is not None:
        dials["height"], dials["width"] = shape
    try:
        world = World.preset(preset, **dials | dict(map(parse_assignment, assignments or ())))
    except InputError as error:
        raise UsageError(str(error)) from error
    progress = make_progress(quiet, as_json)
    how: How = {"store": store or "raw", "workers": workers, "progress": progress}
    report = prepare_synthetic(world, data_root, name=name, **how)
    show_report(report, progress, data_root, as_json)


@app.command(
    epilog="\b\nExamples:\n"
    "  icsr prepare folder shop --source crops --pattern '{camera}/{name}.jpg'\n"
    "  icsr prepare folder shop --source crops --pattern '{id}_c{camera}_*.jpg'\n"
    "  icsr prepare folder shop --source crops --pattern '{camera}/{track}/{frame}.jpg'\n"
    "  icsr prepare folder shop --csv images.csv\n"
    "  icsr prepare folder shop --add week2",
)
def folder(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name for the data set.")],
    source: Annotated[
        Path | None,
        typer.Option("--source", help="Folder or archive of the crops; with --csv the CSV file's folder."),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--pattern", help="How paths read: {camera}, {id}, {track}, {frame}, {split}, {name}, *, ?, **/."
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--csv", help="CSV file with path,camera and, if known, id, split, track, frame."),
    ] = None,
    add: Annotated[
        Path | None,
        typer.Option("--add", metavar="DIR", help="Add the new crops of a folder to what is prepared."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be read; write nothing.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Draws the queries and the identities for evaluation.")
    ] = 0,
    test_share: Annotated[
        float, typer.Option(help="Where every image has an id: share of the identities kept for evaluation.")
    ] = 0.5,
    size: Size = None,
    store: StoreForm = None,
    data_root: options.DataRoot = Path("data"),
    allow_bad: AllowBad = False,
    workers: Workers = None,
    expansion: Expansion = 100,
    verify: Verify = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Prepare your own crops: the camera of each image is needed, identities are not."""
    if verify:
        _verify(ctx, name, data_root, workers, as_json, quiet)
        return
    from icsr_cli.recipes.preparation import FOLDER, OwnCrops, add_to_folder, check_free, prepare_folder

    progress = make_progress(quiet, as_json)
    how: How = {"allow_bad": allow_bad, "workers": workers, "progress": progress}
    if store is not None:
        how["store"] = store
    if add is not None:
        ignored = ("source", "seed", "test_share", "expansion")
        options.refuse_typed(ctx, ignored, "--add names the folder of the new crops, and draws nothing anew;")
        if dry_run:
            raise UsageError(
                f"--dry-run shows how a folder alone is read, not what is added: --source {add} --dry-run."
            )
        report = add_to_folder(name, add, data_root, pattern=pattern, table=table, size=_size(size), **how)
    else:
        crops, shape = OwnCrops(pattern, table, seed, test_share), _size(size) or (256, 128)
        if dry_run:
            check_free(name, data_root, FOLDER)
            show_preview(source, crops, as_json)
            return
        report = prepare_folder(name, source, data_root, crops, size=shape, expansion=expansion, **how)
    show_report(report, progress, data_root, as_json)


@app.command("plugin", epilog="Example: icsr prepare corridor --plugin corridor.py --source PATH")
def own_file(
    plugin: Annotated[
        Path, typer.Option("--plugin", metavar="FILE", help="Your file with BENCHMARK = ...; it is run.")
    ],
    name: Annotated[str | None, typer.Argument(help="Name of the data set, as the file has it.")] = None,
    source: Source = None,
    data_root: options.DataRoot = Path("data"),
    size: Size = None,
    store: StoreForm = None,
    allow_bad: AllowBad = False,
    workers: Workers = None,
    expansion: Expansion = 100,
    tracks_within: TracksWithin = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Prepare a data set that a file of your own defines: icsr prepare NAME --plugin FILE."""
    from icsr_cli.datasets.own_file import OwnFile
    from icsr_cli.recipes.preparation import prepare as recipe

    file = OwnFile.load(plugin)
    if name not in (None, file.benchmark.name):
        raise UsageError(f"{plugin} defines the data set {file.benchmark.name!r}, not {name!r}.")
    progress = make_progress(quiet, as_json)
    how: How = {"store": store or "raw", "allow_bad": allow_bad, "workers": workers, "progress": progress}
    report = recipe(
        file, source, data_root, size=_size(size), expansion=expansion, tracks_within=tracks_within, **how
    )
    show_report(report, progress, data_root, as_json)


@app.command("verify", hidden=True)
def verify_any(
    name: Annotated[str, typer.Argument(help="Name of a prepared data set.")],
    data_root: options.DataRoot = Path("data"),
    workers: Workers = None,
    verify: Verify = True,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read everything of a prepared data set again and check it."""
    show_verification(name, data_root, workers, as_json, quiet)


def _verify(
    ctx: typer.Context, name: str, data_root: Path, workers: int | None, as_json: bool, quiet: bool
) -> None:
    """Check what is prepared; refuse options that say how to prepare it."""
    own = {"name", "data_root", "workers", "verify", "as_json", "quiet"}
    others = {param.name or "" for param in ctx.command.params} - own
    options.refuse_typed(ctx, others, "--verify checks what is prepared already;")
    show_verification(name, data_root, workers, as_json, quiet)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text.lower())
    height, width = map(int, found.groups()) if found else (0, 0)
    if not all(0 < side <= 2048 for side in (height, width)):  # no network is trained on larger ones
        raise UsageError(f"--size {text!r} is no height x width; give pixels such as 256x128, at most 2048.")
    return height, width


def _one_or_two(option: str, text: str, sign: str, example: str) -> tuple[int, int]:
    """Read a number, which then counts twice, or two with a sign between them."""
    found = re.fullmatch(rf"(\d{{1,9}})(?:\{sign}(\d{{1,9}}))?", text)
    if not found:
        raise UsageError(f"{option} {text!r}: give a number, or {example}.")
    return int(found[1]), int(found[2] or found[1])
