"""``icsr labels review``: a page that asks a person for the pairs worth most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icsr_cli.cli import options
from icsr_cli.cli.console import make_progress, print_facts, print_json, say
from icsr_cli.errors import UsageError

if TYPE_CHECKING:
    from icsr_cli.labelling.questions import Questions
    from icsr_cli.recipes.review import Review


def review(
    run: Annotated[Path | None, options.a_run(help="A global run; the newest if left out.")] = None,
    dataset: options.NewestOf = None,
    questions: Annotated[int, typer.Option("--questions", min=1, help="Pairs to ask, at most.")] = 50,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", metavar="FILE", help="Answers there are already; they are not asked again."),
    ] = None,
    pairs_labels: options.PairsLabels = None,
    truth: Annotated[
        bool, typer.Option("--truth", help="Answer from the identities, to measure; writes the answers.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="What is written: review.html, or answers.csv with --truth."),
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = None,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write a page that asks which pictures show one person, the pairs worth most first.

    Open it in a browser; it saves answers.csv, for icsr train global --pairs.
    """
    from icsr_cli import config, datasets
    from icsr_cli.files import write_text
    from icsr_cli.recipes.review import open_review
    from icsr_cli.recipes.steps import choose_engine
    from icsr_cli.reports.pages.review import review_page
    from icsr_cli.reports.view import View
    from icsr_cli.runs import newest

    path = out or Path("answers.csv" if truth else "review.html")
    options.check_out(path, "--out", *((".csv",) if truth else options.PAGES))
    if truth and out is None and path.exists() and not (pairs and path.samefile(pairs)):
        raise UsageError(f"{path} is there, and may hold what somebody said. Name another with --out.")
    progress = make_progress(quiet, as_json)
    options.load_plugins(plugin)
    if run is not None:
        folder = options.named_run(run, dataset)
    else:
        folder = newest(runs_root, dataset, "global", file="last.safetensors")
    data = datasets.load(folder.dataset, data_root)
    if truth and not data.train.has_identities:
        raise UsageError(f"The images of {data.name!r} have no identities to answer from: leave --truth out.")
    settings = config.load_run(folder.path / "settings.yaml")
    engine = choose_engine(device, settings.precision)
    known = {"pairs": pairs, "pairs_labels": pairs_labels}
    opened = open_review(folder, data, settings, data_root, engine, progress, **known)
    asked = opened.ask(questions)
    places = {"data_root": data_root, "runs_root": runs_root if run is None else None}
    again = ["train", "global", "-d", data.name, "--config", folder.path / "settings.yaml"]
    again += ["--local", local] if (local := folder.local) is not None else []
    again += ["--pairs", path if truth else "answers.csv"]
    again += [word for one in plugin or () for word in ("--plugin", one)]
    following = options.typed(*again, **places)
    if truth:
        found = _answer(opened, asked, path)
    else:
        pictures = View((folder,), data_root, progress=progress).pictures
        source, facts = f"{data.name}, global run {folder.path.name}", {"Run": str(folder.path)}
        said, names = opened.known(), data.camera_names
        write_text(
            path,
            review_page(source, facts, asked, data.train, names, pictures, command=following, known=said),
        )
        found = {}
    kinds = {f"{kind}_questions": int((asked.kinds == kind).sum()) for kind in ("join", "split")}
    result = {"run": str(folder.path), "questions": len(asked), **kinds, **found, "written": str(path)}
    if as_json:
        print_json(result)
        return
    print_facts(f"Review of {folder.path}", {**result, "run": None, "written": None})
    say(f"Written to {path}\nNext: {following if truth else f'open {path} in a browser'}", whole=True)


def _answer(opened: Review, asked: Questions, path: Path) -> dict[str, Any]:
    """Write the answers of the identities; gives how many, and what they make of the labels."""
    from icsr_cli.metrics import judge
    from icsr_cli.recipes.review import truth_of
    from icsr_cli.runs.pairs import ANSWERS, write_answers

    answers = truth_of(asked, opened.split)
    write_answers(path, [*opened.known(), *answers])
    found: dict[str, Any] = {word: sum(one.answer == word for one in answers) for word in ANSWERS}
    for name, given in (("before", ()), ("after", answers)):
        judged = judge(opened.relabel(given).labels, opened.split.identities)
        if judged is not None:
            found |= {f"nmi_{name}": judged.nmi, f"pairwise_f_{name}": judged.pairwise_f}
    return found
