"""What the command line prints, on any terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest
import typer

from icsr_cli.cli.console import print_table
from icsr_cli.cli.main import _open_standard_files


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, width: int) -> str:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")  # rich takes a dumb one for 80 columns wide
    columns = ["file", *(f"mean number {number}" for number in range(5))]
    print_table(
        "A title", columns, [["a/long/path/of/an/image.jpg", *(f"{number}.125" for number in range(5))]]
    )
    return re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())


@pytest.mark.parametrize("width", [20, 40, 45, 46, 47, 80, 120])
def test_no_number_is_cut_off(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Where there is less room than the figures need, the terminal breaks the lines."""
    text = shown(monkeypatch, width)
    assert all(f"{number}.125 " in text for number in range(5))
    assert text.count("number") == 5
    assert max(map(len, text.splitlines())) <= max(width, 61)


@pytest.mark.parametrize("encoding", ["utf-8", "iso8859-1"])
def test_what_the_output_cannot_hold_is_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    _open_standard_files()
    typer.echo("data\udcff/\u4e2d")
    print_table("data\udcff/\x1b[2J", ["file"], [["a\udcff_in_a_wide_table.jpg"]])
    sys.stdout.flush()
    text = written.getvalue().decode(encoding)
    assert all(name in text for name in ("data\\udcff/", r"\x1b[2J", r"a\udcff_in"))
