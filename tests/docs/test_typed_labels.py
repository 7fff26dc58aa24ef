"""The command of docs/labels.md that stores fewer pairs, typed as it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_typed_commands import commands, section, type_in


def test_fewer_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    people = generator.standard_normal((20, 16))[np.repeat(np.arange(20), 8)]
    np.savez("features.npz", features=people + 0.3 * generator.standard_normal(people.shape))
    type_in(commands(section("docs/labels.md", "How it works")))
