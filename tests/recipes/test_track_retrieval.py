"""Retrieval from track to track."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracked_crops import write_tracks
from typer.testing import CliRunner

from icsr_cli.cli.main import app
from icsr_cli.errors import DatasetError
from icsr_cli.recipes.evaluation import by_track
from icsr_cli.types import ImageRecord, Split


def random_splits(rng: np.random.Generator) -> tuple[Split, Split]:
    """Queries and a gallery; one image is in both, as where it is the only one of its camera."""
    tracks = rng.integers(-1, 6, 30)
    records = [
        ImageRecord(f"{n}.jpg", int(track) % 3 if track >= 0 else 0, int(rng.integers(0, 3)), int(track))
        for n, track in enumerate(tracks)
    ]
    return Split(Path(), tuple(records[:9])), Split(Path(), tuple(records[8:]))


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_against_a_loop_over_tracks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, gallery = random_splits(rng)
    features = rng.normal(size=(len(query) + len(gallery), 5)).astype(np.float32)
    features[len(query)] = features[len(query) - 1]  # the image of both
    found, identities, cameras, queries = by_track("x", query, gallery, torch.from_numpy(features))
    images = {}
    for row, record in enumerate([*query.records, *gallery.records]):
        images.setdefault(record.path, (record, features[row] / np.linalg.norm(features[row])))
    expected = []
    for split in (query, gallery):
        keys = {(r.track, None) if r.track >= 0 else (-1, r.path) for r in split.records}
        part = []
        for track, path in keys:
            own = [
                (r, f) for r, f in images.values() if r.path == path or (path is None and r.track == track)
            ]
            votes = Counter(record.identity for record, _ in own)
            who = min(votes, key=lambda identity: (-votes[identity], identity))
            mean = np.mean([feature for _, feature in own], axis=0)
            part.append((who, own[0][0].camera, mean / np.linalg.norm(mean)))
        expected.append(part)
    assert queries == len(expected[0])
    for part, rows in zip(expected, (slice(0, queries), slice(queries, None)), strict=True):
        own = list(zip(identities[rows], cameras[rows], found[rows].numpy(), strict=True))
        assert len(own) == len(part)
        for who, camera, mean in part:
            assert any(
                (who, camera) == (found_who, found_camera) and np.allclose(mean, found_mean, atol=1e-6)
                for found_who, found_camera, found_mean in own
            )


def test_images_without_tracks_are_refused() -> None:
    split = Split(Path(), (ImageRecord("a", 0, 1),))
    with pytest.raises(DatasetError, match="have no tracks"):
        by_track("x", split, split, torch.ones(2, 3))


def test_the_command(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rendered = next((tiny_root / "tiny").glob("rendered-*"))
    for part, name in (("bounding_box_train", "train"), ("bounding_box_test", "gallery"), ("query", "query")):
        write_tracks(rendered, tmp_path / "crops" / name, part=part)
    lines = ["path,camera,id,split,track"]
    for file in sorted((tmp_path / "crops").rglob("*.jpg")):
        split, camera, track, _ = file.relative_to(tmp_path / "crops").parts
        lines.append(f"{file.relative_to(tmp_path)},{camera},{track[1:5]},{split},{track}")
    (tmp_path / "shop.csv").write_text("\n".join(lines))

    def icsr(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    icsr("prepare", "folder", "shop", "--csv", "shop.csv", "--size", "32x16")
    small = (
        "-a",
        "resnet_small",
        "--init",
        "none",
        "--epochs",
        "1",
        "--iters",
        "1",
        "-b",
        "8",
        "--height",
        "32",
    )
    dials = ("--set", "global.clusterer.eps=0.7", "--set", "global.clusterer.min_samples=2")
    icsr(
        "train",
        "global",
        "-d",
        "shop",
        "-m",
        "cluster-contrast",
        *small,
        "--width",
        "16",
        *dials,
        "--name",
        "r",
    )
    images = json.loads(icsr("eval", "runs/shop/global/r", "--json"))
    tracks = json.loads(icsr("eval", "runs/shop/global/r", "--tracks", "--rerank", "--json"))
    assert tracks["tracks"]
    assert not images["tracks"]
    assert 0 < tracks["plain"]["queries"] <= images["plain"]["queries"]
    assert tracks["plain"]["mAP"] != images["plain"]["mAP"]
    kept = json.loads(Path("runs/shop/global/r/evaluation.json").read_text())["evaluations"]
    assert [(entry["protocol"], entry["rerank"]) for entry in kept] == [
        ("cross-camera", None),
        ("tracks", None),
        ("tracks", "k-reciprocal"),
    ]
    assert "from track to track" in icsr("eval", "runs/shop/global/r", "--tracks")
