"""The page that asks for pairs: what it holds, and what it does in a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from browser import CHROMIUM, Visit, visit
from html_pages import Page

from icsr_cli.labelling.questions import Questions, choose
from icsr_cli.reports.pages.review import STRIP, review_page
from icsr_cli.reports.pictures import Pictures
from icsr_cli.runs.pairs import Answer, read_answers, read_pairs
from icsr_cli.types import ImageRecord, Split

N, PEOPLE = 40, 5
#: A name that must be escaped, in the page and in the table.
ODD = 'c1/b"<b>,7.jpg'


@pytest.fixture
def split() -> Split:
    names = [f"c{row % 4}/{row:03}.jpg" for row in range(N)]
    return Split(
        Path(), tuple(ImageRecord(ODD if row == 8 else name, row % 4) for row, name in enumerate(names))
    )


@pytest.fixture
def asked() -> Questions:
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(PEOPLE), N // PEOPLE)
    close = np.where(labels[:, None] == labels, 0.8, 0.3) * generator.uniform(0.8, 1, (N, N))
    return choose(labels, sp.csr_array((close + close.T).astype(np.float32) / 2), np.arange(N) % 4, 5)


@pytest.fixture
def page(split: Split, asked: Questions) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (N, 32, 16, 3), dtype=np.uint8)
    known = [Answer("c0/000.jpg", ODD, "different")]
    cameras = [f"camera <{number}>" for number in range(4)]
    return review_page(
        "tiny",
        {"Run": "runs/a"},
        asked,
        split,
        cameras,
        Pictures(split.paths, pixels),
        command="icsr train global --pairs answers.csv --plugin mine.py",
        known=known,
    )


def test_the_page_is_whole(page: str, asked: Questions) -> None:
    read = Page(page)
    read.check()
    assert read.classes.count("question") == len(asked) == 5
    assert read.classes.count("asked") == 10
    assert len(read.images) <= 10 * STRIP
    assert "1 pair" in read.text
    assert "--plugin mine.py" in read.text
    assert "camera <3>" in read.text
    assert "Do the framed pictures show the same person?" in read.text


def test_nothing_to_ask(split: Split) -> None:
    nothing = choose(np.full(N, -1), sp.csr_array(np.eye(N, dtype=np.float32)), np.arange(N) % 4, 5)
    read = Page(review_page("tiny", {}, nothing, split, list("abcd"), None, command="icsr"))
    read.check()
    assert "There is nothing to ask" in read.text
    assert read.images == []


def _press(keys: str) -> str:
    events = "".join(
        f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}));" for key in keys
    )
    return f"(() => {{ {events} return document.querySelector('#count').textContent; }})()"


#: Which question is shown; -1 for none.
AT = "[...document.querySelectorAll('.question')].findIndex(one => !one.hidden)"
PRESSED = "[...document.querySelectorAll('[aria-pressed=true]')].map(one => one.id).join()"


def _asks_nobody(found: Visit, file: Path) -> None:
    assert found.errors == []
    assert {address.split(":")[0] for address in found.requests} <= {"file", "data", "blob"}
    assert {address for address in found.requests if address.startswith("file")} == {file.as_uri()}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_answers_by_keys_and_nothing_is_lost(
    tmp_path: Path, page: str, split: Split, asked: Questions
) -> None:
    file = tmp_path / "review.html"
    file.write_text(page, encoding="utf-8")
    found = visit(
        file,
        tmp_path / "profile",
        {
            "begin": AT,
            "three": _press("sdU"),
            "fourth": AT,
            "other keys": _press("xyz1"),
            "back": _press("bb"),
            "second": AT,
            "chosen": PRESSED,
            "changed": _press("s"),
        },
        reloaded={
            "again": AT,
            "kept": "document.querySelector('#count').textContent",
            "bar": "document.querySelector('#bar').value",
            "end": _press("du") + "; document.querySelector('#different').click()",
            "over": AT,
            "done": "!document.querySelector('#done').hidden",
            "more": _press("s"),
            "saved": "document.querySelector('#save').click()",
        },
        downloads=tmp_path,
    )
    _asks_nobody(found, file)
    values = found.values
    assert (values["begin"], values["fourth"], values["second"]) == (0, 3, 1)
    assert values["three"] == values["other keys"] == "3 of 5 answered: 1 same, 1 different, 1 not sure"
    assert values["back"] == values["three"]
    assert values["chosen"] == "different"
    assert values["changed"] == values["kept"] == "3 of 5 answered: 2 same, 0 different, 1 not sure"
    assert (values["again"], values["bar"]) == (3, 3)
    assert (values["over"], values["done"]) == (-1, True)
    assert values["more"] == "5 of 5 answered: 2 same, 1 different, 2 not sure"
    written = tmp_path / "answers.csv"
    answers = read_answers(written)
    assert (answers[0].first, answers[0].second, answers[0].answer) == ("c0/000.jpg", ODD, "different")
    assert [one.answer for one in answers[1:]] == ["same", "same", "unsure", "different", "unsure"]
    pairs = read_pairs(written, split.paths)
    assert pairs is not None
    np.testing.assert_array_equal(pairs.same, np.column_stack([asked.first, asked.second])[:2])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(tmp_path: Path, page: str, dark: bool) -> None:
    file = tmp_path / "review.html"
    file.write_text(page, encoding="utf-8")
    questions = {
        "sideways": "document.documentElement.scrollWidth - window.innerWidth",
        "buttons": "[...document.querySelectorAll('.keys button')].every("
        "one => { const b = one.getBoundingClientRect();"
        " return b.height >= 44 && b.bottom <= innerHeight && b.right <= innerWidth; })",
        "pictures": "[...document.querySelectorAll('.question:not([hidden]) .asked img')].map("
        "one => one.getBoundingClientRect().right <= innerWidth && one.width > 60).join()",
    }
    found = visit(file, tmp_path / "profile", questions, 390, dark)
    _asks_nobody(found, file)
    assert found.values["sideways"] <= 0
    assert found.values["buttons"] is True
    assert found.values["pictures"] == "true,true"
