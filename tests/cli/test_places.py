"""Places that cannot be written to: refused before anything is computed, by the name that was given."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from in_process import icsr

from icsr_cli.errors import DatasetError
from icsr_cli.files import whole_file
from icsr_cli.images import store
from icsr_cli.images.store import build_pixels
from icsr_cli.types import Dataset

#: Commands that write a file, without its name: none needs what it names to be there yet.
WRITING = (
    ("assign crops --out", ".csv"),
    ("embed crops --out", ".npz"),
    ("labels generate features.npz --out", ".csv"),
    ("labels inspect --html", ".html"),
    ("labels review --out", ".html"),
    ("labels review --truth --out", ".csv"),
    ("report --out", ".html"),
    ("compare --html", ".html"),
    ("search a.jpg --gallery crops --out", ".png"),
)


@pytest.mark.parametrize(("command", "suffix"), WRITING)
def test_a_place_that_holds_no_file_is_refused_at_once(command: str, suffix: str, tmp_path: Path) -> None:
    folder, file = tmp_path / f"folder{suffix}", tmp_path / "file"
    folder.mkdir()
    file.write_text("mine")
    for place, words in ((folder, "is no file"), (file / f"a{suffix}", "is no folder")):
        result = icsr(*command.split(), place)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.stderr.split())
    assert file.read_text() == "mine"


@pytest.mark.parametrize("command", [line for line, suffix in WRITING if suffix == ".html"])
def test_a_page_takes_no_other_files_place(command: str, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("mine")
    result = icsr(*command.split(), labels)
    assert result.exit_code == 2
    assert "must end in .html" in result.stderr
    assert labels.read_text() == "mine"


@pytest.mark.parametrize("named", [True, False])  # what a write raises names no file
def test_a_fault_names_the_file_that_was_asked_for(tmp_path: Path, named: bool) -> None:
    with pytest.raises(OSError, match="nowhere") as raised, whole_file(tmp_path / "a.csv") as temporary:
        raise OSError(errno.ENOSPC, "nowhere", *([str(temporary)] if named else []))
    assert raised.value.filename == str(tmp_path / "a.csv")


def test_pixels_that_may_not_be_written_ask_for_no_room(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store._Build, "run", refuse)
    with pytest.raises(DatasetError, match=r"Permission denied.*a size that is there"):
        build_pixels(tiny.splits["query"], tmp_path, 32, 16, name="query")
