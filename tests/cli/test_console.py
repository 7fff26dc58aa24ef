"""What the command line prints, on any terminal."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest
import typer

from icsr_cli.cli.console import BarProgress, LineProgress, QuietProgress, print_table
from icsr_cli.cli.labels_inspect import _show_epochs
from icsr_cli.cli.main import _open_standard_files
from icsr_cli.progress import Progress


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
    """Columns that have no room go on below."""
    text = shown(monkeypatch, width)
    assert all(f"{number}.125 " in text for number in range(5))
    assert text.count("number") == 5
    assert max(map(len, text.splitlines())) <= width


def test_epochs_with_pairs_fit_80_columns_beside_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pairs = {"pairs_same": 12, "pairs_different": 1234, "pairs_mended": 5, "moved": 17}
    judged = {name: {"nmi": 0.5} for name in ("global", "refined")}
    line = {"epoch": 1, "loss": 2.5, "images": 1234, "clusters": 123, "kept": 1200, "noise": 34}
    _show_epochs([line | {"silhouette": 0.25, "camera_nmi": 0.1} | pairs | {"quality": judged}])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("epoch" in line for line in lines) == 1


def test_a_title_is_one_line_above_a_narrow_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    title = f"synthetic: {'a_long_folder/:cat:' * 20}[b]rendered-5425ca6a"
    print_table(title, ["a", "b"], [[1, 2]])
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == title
    assert [line.split() for line in rest if line.strip(" ─")] == [["a", "b"], ["1", "2"]]


def test_a_pipe_gets_whole_rows_or_the_width_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ["word " * 25, "end"]
    for columns, widest in (("", 133), ("80", 80)):
        monkeypatch.setenv("COLUMNS", columns)
        print_table("", ["first", "last"], [row])
        assert max(map(len, capsys.readouterr().out.splitlines())) == widest


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


@pytest.mark.parametrize("kind", [QuietProgress, BarProgress, LineProgress])
def test_no_name_moves_the_cursor(kind: type[Progress], monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of images go through progress as well: \x07 rings, \x1b moves and colours."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(time, "monotonic", iter(range(0, 10_000, 40)).__next__)
    name, progress = "c1_\x1b[31mred\x07[b]:cat:.jpg", kind()
    progress.note(f"note {name}")
    progress.warn(f"warn {name}")
    progress.report(f"report {name}", {name: 1, "file": name})
    with progress.task(f"task {name}", 2, "img") as task:
        task.show(lambda: {"file": name})
        task.advance()
        if kind is BarProgress:
            progress._bars.refresh()
    written = terminal.getvalue()
    assert "\x1b[31mred" not in written
    assert "\x07" not in written
    assert written.count(r"\x1b[31mred\x07[b]:cat:.jpg") >= (1 if kind is QuietProgress else 6)


def test_a_line_of_progress_comes_twice_a_minute_with_the_figures_of_that_moment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    asked = []
    with LineProgress().task("Epoch 1", 7, "steps") as task:
        for step in range(1, 8):
            task.show(lambda step=step: asked.append(step) or {"loss": 1 / step})
            task.advance()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Epoch 1:  43%|####")
    assert first.endswith("| 3/7 [00:30<00:40, 10.00s/steps, loss 0.33]")
    assert second.endswith("| 6/7 [01:00<00:10, 10.00s/steps, loss 0.17]")
    assert asked == [3, 6]  # figures wait for the device, and are asked for only then
