"""The commands of the pages about scale, typed as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_typed_commands import commands, section, type_in


def test_a_run_on_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    type_in(commands(section("docs/training.md", "A run on paper")))
