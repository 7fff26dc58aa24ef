"""``icsr demo`` where it does not come to its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from icsr_cli.cli import demo
from icsr_cli.cli.main import app
from icsr_cli.errors import Interrupted


def test_an_interrupted_demo_advises_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise Interrupted("SIGTERM: go on with the same command and --resume.", signal_number=15)

    monkeypatch.setattr(demo, "_train_and_measure", stop)
    places = ["--data-root", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, ["demo", "--identities", "8", "-q", *places])
    assert result.exit_code == 143
    said = " ".join(result.stderr.split())
    assert "same command starts the demo anew" in said
    assert "--resume -d demo" in said
