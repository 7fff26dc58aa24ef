"""The page that asks a person for pairs: two strips of pictures side by side, and one key for each answer.

What it asks is in the page itself, and so are the answers, in the browser, until they are saved as a file
(``icsr_cli.runs.pairs``).
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from icsr_cli.errors import UsageError, counted, not_utf8
from icsr_cli.labelling.questions import JOIN, Questions
from icsr_cli.reports.galleries import Gallery, look, sampled, shown
from icsr_cli.reports.page import render, script
from icsr_cli.reports.pictures import Pictures
from icsr_cli.runs.pairs import Answer
from icsr_cli.types import IntArray, Split

#: Pictures of each side.
STRIP: Final = 9
_WHY: Final = {
    JOIN: "They are in two clusters that nearly became one.",
    "split": "They are in one cluster that nearly became two.",
}


def review_page(
    source: str,
    facts: dict[str, str],
    questions: Questions,
    split: Split,
    camera_names: Sequence[str],
    pictures: Pictures | None,
    *,
    command: str,
    known: Sequence[Answer] = (),
) -> str:
    """Give the whole page as HTML: the ``questions``, of images of ``split``.

    ``source``: the run, by name. ``facts``: what the head says. ``command``: what takes the file of
    answers, answers.csv. ``known``: what that file begins with.
    """
    asked = [_question(questions, number, split, camera_names, pictures) for number in range(len(questions))]
    if odd := not_utf8(name for one in asked for name in (one["first"], one["second"])):
        raise UsageError(
            f"The name {odd[0]!r} is no UTF-8, and a browser cannot write it into the answers. Rename such "
            "images and prepare them again."
        )
    # What was answered in this browser is known again by the pairs that are asked.
    pairs = "\n".join(f"{one['first']}\t{one['second']}" for one in asked)
    return render(
        "review.html",
        title=f"Review of {source}",
        facts={**facts, **({"Known before": counted(len(known), "pair")} if known else {})},
        questions=asked,
        known=known,
        name=hashlib.sha256(pairs.encode()).hexdigest()[:16],
        file="answers.csv",
        command=command,
        **script("review.js"),
    )


def _question(
    questions: Questions, number: int, split: Split, camera_names: Sequence[str], pictures: Pictures | None
) -> dict[str, Any]:
    """Give one pair of images, by their paths, with what the page says and shows of it."""
    ends = int(questions.first[number]), int(questions.second[number])
    left, right = (
        _strip(title, end, questions.images(number, side), split, camera_names, pictures)
        for side, (title, end) in enumerate(zip(("Left", "Right"), ends, strict=True))
    )
    first, second = (split.records[end].path for end in ends)
    why = _WHY[str(questions.kinds[number])]
    return {"first": first, "second": second, "why": why, "left": left, "right": right}


def _strip(
    title: str,
    asked: int,
    images: IntArray,
    split: Split,
    camera_names: Sequence[str],
    pictures: Pictures | None,
) -> Gallery:
    """Show the image that is asked for, and of the others some of every camera."""
    others = images[images != asked]
    cameras = split.cameras[others]
    chosen = others[sampled([(str(camera),) for camera in cameras.tolist()], STRIP - 1)]
    rows = [asked, *chosen[np.argsort(split.cameras[chosen], kind="stable")].tolist()]
    own = [split.records[row] for row in rows]
    of = len(set(split.cameras[images].tolist()))
    facts = counted(len(images), "image"), counted(of, "camera")
    group = tuple(shown(one.path, pictures, look("kept", "kept"), [camera_names[one.camera]]) for one in own)
    return Gallery("", title, facts, (("", group),), len(images) - len(rows))
