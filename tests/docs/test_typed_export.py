"""The commands of the page on export that store statistics of cameras, typed as they stand, and its code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_typed_commands import commands, home, section, type_in
from test_typed_tracker import python_blocks

from icsr_cli import datasets
from icsr_cli.models import build, save_weights
from icsr_cli.progress import Progress
from icsr_cli.recipes.debiasing import StoredStatistics
from icsr_cli.runs import create

__all__ = ["home"]


def test_statistics_of_cameras(home: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("ICSR_DATA", str(tiny_root))
    run = create(home / "runs", "tiny", "global", name="a")
    save_weights(
        build("resnet_small", seed=1), run.path / "best.safetensors", {"height": "32", "width": "16"}
    )
    run.finish()
    tiny = datasets.load("tiny", tiny_root)
    gallery = tiny.splits["gallery"]
    for row, record in enumerate(gallery.records[:9]):
        camera = home / "crops" / tiny.camera_names[record.camera]
        camera.mkdir(parents=True, exist_ok=True)
        shutil.copy(gallery.root / record.path, camera / f"{row}.jpg")
    shutil.copy(gallery.root / gallery.records[0].path, home / "person.jpg")
    type_in(commands(section("docs/export.md", "Statistics of cameras")))
    assert len(np.load(home / "features.npz")["features"]) == 9

    reader: dict[str, Any] = {}
    exec(python_blocks("export.md")[-1], reader)
    known = StoredStatistics.read(home / "shop.safetensors", (32, 16))
    features = np.random.default_rng(0).standard_normal((4, 128)).astype(np.float32)
    for camera in (*tiny.camera_names, "another"):
        rows = [camera] * 4 if camera in known.cameras else [camera, camera, camera, tiny.camera_names[0]]
        expected = known.apply(features, rows, Progress())[:3]
        np.testing.assert_allclose(reader["debiased"](features, camera)[:3], expected, atol=1e-6)
