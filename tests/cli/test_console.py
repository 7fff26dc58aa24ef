"""What the command line prints, on any terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest

from icsr_cli.cli.console import print_table


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
