"""Labels that several processes compute together, over gloo: those of one, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from forked import run_ranks
from team_worker import main

from icsr_cli.types import ALONE


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("team")
    main(out)
    for size in (2, 4):
        run_ranks(size, out / str(size), main, out)
    return out


@pytest.mark.parametrize("size", [2, 4])
def test_a_team_finds_what_one_process_finds(size: int, out: Path) -> None:
    expected = np.load(out / "1-0.npz")
    assert len(np.unique(expected["labels"])) > 100
    for rank in range(size):
        found = np.load(out / f"{size}-{rank}.npz")
        for name, values in expected.items():
            if rank > 0 and name.split()[-1] in ("indptr", "data"):  # the leader's alone
                assert not found[name].any(), name
                continue
            if rank > 0 and name.endswith("indices") and found[name].ndim == 1:
                assert found[name].size == 0, name
                continue
            assert found[name].dtype == values.dtype, name
            assert found[name].tobytes() == values.tobytes(), name


def test_one_process_is_a_team() -> None:
    assert (ALONE.share(5), ALONE.join("own"), ALONE.to_leader("own")) == ((0, 5), ["own"], ["own"])
