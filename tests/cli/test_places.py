"""Places that cannot be written to: refused before anything is computed, by the name that was given."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from in_process import icsr

from icsr_cli.errors import DatasetError
from icsr_cli.files import whole_file, write_text
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


@pytest.mark.parametrize(
    ("target", "root", "words"),
    [
        ("nowhere", "data", "File exists: data. No folder can be there: move away the file or dead link, or"),
        ("data", "data", "data/synthetic. Mend the link, or name another place"),
        ("", "n" * 300, ". Take a shorter name, or name another place"),
    ],
)
def test_a_root_that_cannot_be_a_folder(
    target: str, root: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if target:
        Path(root).symlink_to(target)
    result = icsr("prepare", "synthetic", "--identities", 2, "--data-root", root)
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())


def test_a_name_that_is_too_long_is_told_as_it_was_given(tmp_path: Path) -> None:
    name = tmp_path / f"{249 * 'n'}.html"  # the name until it is whole is longer
    with pytest.raises(OSError, match="too long") as raised:
        write_text(name, "page")
    assert raised.value.filename == str(name)


def test_pixels_that_may_not_be_written_ask_for_no_room(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store._Build, "run", refuse)
    with pytest.raises(DatasetError, match=r"Permission denied.*a size that is there"):
        build_pixels(tiny.splits["query"], tmp_path, 32, 16, name="query")
