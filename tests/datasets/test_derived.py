"""Tracks that are derived from identities and frames."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli import datasets
from icsr_cli.datasets.derived import derive_tracks
from icsr_cli.errors import UsageError
from icsr_cli.recipes.preparation import prepare
from icsr_cli.types import ImageRecord

image = st.tuples(st.integers(0, 2), st.integers(-1, 3), st.integers(-1, 40))


@settings(deadline=None)
@given(st.lists(image, min_size=1, max_size=40), st.integers(0, 39), st.integers(0, 8))
def test_against_a_walk_through_time(rows, cut, within):
    records = [
        ImageRecord(f"{n}", camera, person, frame=frame) for n, (camera, person, frame) in enumerate(rows)
    ]
    splits = {"train": tuple(records[:cut]), "query": tuple(records[cut:])}
    if not any(person > 0 and frame >= 0 for _, person, frame in rows):
        with pytest.raises(UsageError, match="nothing to derive tracks from"):
            derive_tracks(splits, within, (0, None))
        return
    found = derive_tracks(splits, within, (0, None))
    assert [len(part) for part in found.values()] == [len(part) for part in splits.values()]
    of_image = {record.path: record.track for part in found.values() for record in part}
    expected, number = {}, -1
    for camera in range(3):
        for person in range(1, 4):
            own = sorted(
                (r.frame, r.path)
                for r in records
                if (r.camera, r.identity) == (camera, person) and r.frame >= 0
            )
            before = None
            for frame, path in own:
                number += before is None or frame - before > within
                expected[path], before = number, frame
    assert {path: track for path, track in of_image.items() if track >= 0} == expected


def test_market_by_choice_only(trees, tmp_path):
    root = trees["market1501"][1].write(tmp_path / "M")
    plain = prepare("market1501", root, tmp_path / "data", size=(16, 8))
    assert not datasets.load("market1501", tmp_path / "data").train.has_tracks
    assert [row.tracks for row in plain.splits] == [0, 0, 0]
    report = prepare("market1501", root, tmp_path / "data", size=(16, 8), tracks_within=25)
    assert [row.tracks for row in report.splits] == [3, 1, 1]
    assert "whoever trains with them uses names" in report.notes[-1]
    gallery = datasets.load("market1501", tmp_path / "data").splits["gallery"]
    assert [record.track >= 0 for record in gallery.records] == [False, True], "a distractor is nobody"


def test_names_without_frames_are_refused(trees, tmp_path):
    root = trees["veri"][1].write(tmp_path / "V")
    with pytest.raises(UsageError, match="nothing to derive tracks from"):
        prepare("veri", root, tmp_path / "data", tracks_within=25)
