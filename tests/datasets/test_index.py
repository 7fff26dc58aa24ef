"""The index: written whole, read fast and exactly, and clear about what is wrong with it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli import datasets
from icsr_cli.datasets import index
from icsr_cli.errors import DatasetError
from icsr_cli.types import Dataset, ImageRecord, Split


def make(root, name="shop", splits=None, layout="folder"):
    splits = splits or {"train": (ImageRecord("a/1.jpg", 0), ImageRecord("b/2.jpg", 1, 7))}
    parts = {part: Split(root, records) for part, records in splits.items()}
    own = {**datasets.settings(name, layout), "image": {}}  # nobody said a size
    return Dataset(name, root, parts, ("door", "till"), ("a note",), layout, own)


def test_round_trip(tmp_path):
    root = tmp_path / "data" / "shop" / "images"
    root.mkdir(parents=True)
    dataset = make(root)
    written = index.write(tmp_path / "data", dataset, bad=[{"split": "train", "path": "x", "reason": "y"}])
    assert datasets.load("shop", tmp_path / "data") == dataset
    head = json.loads(written.read_text())
    assert head["root"] == "shop/images", "inside the data root it is relative, and moves with it"
    assert head["splits"] == {"train": {"images": 2, "identities": 1, "cameras": 2}}
    assert head["bad"] == [{"split": "train", "path": "x", "reason": "y"}]
    (tmp_path / "data").rename(tmp_path / "moved")
    assert datasets.load("shop", tmp_path / "moved").root == tmp_path / "moved" / "shop" / "images"


def test_a_source_elsewhere_is_absolute(tmp_path):
    (tmp_path / "crops").mkdir()
    written = index.write(tmp_path / "data", make(tmp_path / "crops"))
    assert json.loads(written.read_text())["root"] == str(tmp_path / "crops")
    assert datasets.load("shop", tmp_path / "data").root == tmp_path / "crops"


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(names, st.integers(0, 30), st.integers(-1, 5000)), min_size=1, max_size=9))
def test_any_names_and_numbers_come_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("index")
    records = tuple(ImageRecord(*row) for row in rows)
    dataset = make(folder, splits={"train": records, "query": records[:1], "gallery": ()})
    index.write(folder, dataset)
    assert datasets.load("shop", folder) == dataset


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(names, st.integers(0, 30), *[st.integers(-1, 2**62)] * 3), min_size=1, max_size=9))
def test_tracks_and_frames_come_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("index")
    records = tuple(ImageRecord(*row) for row in rows)
    dataset = make(folder, splits={"train": records, "query": (ImageRecord("x", 0),)})
    index.write(folder, dataset)
    found = datasets.load("shop", folder)
    assert found == dataset
    assert found.train.tracks.tolist() == [row[3] for row in rows]
    assert found.train.frames.tolist() == [row[4] for row in rows]
    assert found.train.tracks.dtype == found.train.frames.dtype == np.int64
    assert found.train.has_tracks == any(row[3] >= 0 for row in rows)
    assert not found.splits["query"].has_tracks


@pytest.mark.parametrize(
    ("record", "form", "columns"),
    [
        (ImageRecord("a", 0, 5), 2, "split,path,camera,identity"),
        (ImageRecord("a", 0, 5, track=0), 3, "split,path,camera,identity,track,frame"),
        (ImageRecord("a", 0, 5, frame=0), 3, "split,path,camera,identity,track,frame"),
    ],
)
def test_columns_are_there_where_they_say_something(record, form, columns, tmp_path):
    written = index.write(tmp_path, make(tmp_path, splits={"train": (ImageRecord("b", 1), record)}))
    assert json.loads(written.read_text())["format"] == form
    assert (tmp_path / "shop" / "index.csv").read_text().splitlines()[0] == columns


def test_names_that_are_no_utf8_come_back(tmp_path):
    records = (ImageRecord(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), 0),)
    index.write(tmp_path, make(tmp_path, splits={"train": records}))
    assert datasets.load("shop", tmp_path).train.records == records


def test_not_prepared_says_what_to_run(tmp_path):
    index.write(tmp_path, make(tmp_path))
    way = r"Name .*--data-root.* run: icsr prepare"
    with pytest.raises(DatasetError, match=rf"Prepared are: shop\. {way} market1501$"):
        datasets.load("market1501", tmp_path)
    with pytest.raises(DatasetError, match=f"{way} folder crops --source DIR"):
        datasets.load("crops", tmp_path)
    with pytest.raises(DatasetError, match=f"{way} synthetic"):
        datasets.newest(tmp_path / "nothing")


def test_newest_is_the_one_prepared_last(tmp_path):
    for name in ("b", "c", "a"):
        index.write(tmp_path, make(tmp_path, name))
    assert datasets.newest(tmp_path) == "a"
    index.write(tmp_path, make(tmp_path, "b"))
    assert datasets.newest(tmp_path) == "b"
    (tmp_path / "b" / "index.json").write_text("{")
    assert datasets.newest(tmp_path) == "a", "a damaged one is passed over"
    assert datasets.names(tmp_path) == ("a", "b", "c")


def test_damage_is_said(tmp_path):
    written = index.write(tmp_path, make(tmp_path))
    table, head = (tmp_path / "shop" / "index.csv"), written.read_text()
    good = table.read_bytes()
    table.write_bytes(good + b"train,c/3.jpg,0,-1\r\n")
    with pytest.raises(DatasetError, match=r"index.csv does not belong to index.json.*Run again"):
        datasets.load("shop", tmp_path)
    table.unlink()
    with pytest.raises(DatasetError, match=r"Cannot read .*index.csv"):
        datasets.load("shop", tmp_path)
    table.write_bytes(good)
    for text, fault in [
        ("{", "Cannot read"),
        ('{"format": 99}', "another version"),
        ('{"format": []}', "another version"),
        ("[]", "another version"),
        ("[" * 100_000, "nested too deeply"),
        (head.replace("door", "hall"), "its checksum does not fit"),
    ]:
        written.write_text(text)
        with pytest.raises(DatasetError, match=fault):
            datasets.load("shop", tmp_path)
    written.write_text(head)
    assert len(datasets.load("shop", tmp_path).train) == 2


@pytest.mark.parametrize(
    ("layout", "way"), [("folder", "folder shop --source DIR"), ("synthetic", "synthetic --name shop")]
)
def test_images_that_are_gone_are_said(tmp_path, layout, way):
    root = tmp_path / "crops"
    root.mkdir()
    index.write(tmp_path / "data", make(root, layout=layout))
    shutil.rmtree(root)
    said = rf"The images of 'shop' were in .*crops, which is gone.*: icsr prepare {way}"
    with pytest.raises(DatasetError, match=said):
        datasets.load("shop", tmp_path / "data")


def test_a_failed_write_keeps_the_old_index(tmp_path, monkeypatch):
    index.write(tmp_path, make(tmp_path))
    before = datasets.load("shop", tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        index.write(tmp_path, make(tmp_path, splits={"train": (ImageRecord("z.jpg", 0),)}))
    assert datasets.load("shop", tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == ["index.csv", "index.json"]


@pytest.mark.parametrize("killed", [True, False])
def test_an_end_between_the_two_files_leaves_the_old_index(tmp_path, monkeypatch, killed):
    index.write(tmp_path, make(tmp_path))
    before = datasets.load("shop", tmp_path)
    replace = Path.replace

    def stop(path, target):
        if target.name == "index.json":
            raise (SystemExit if killed else OSError)("stopped")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises((OSError, SystemExit)):
        index.write(tmp_path, make(tmp_path, splits={"train": (ImageRecord("z.jpg", 0),)}))
    monkeypatch.undo()
    assert "z.jpg" in (tmp_path / "shop" / "index.csv").read_text()
    assert datasets.load("shop", tmp_path) == before
    index.write(tmp_path, make(tmp_path, splits={"train": (ImageRecord("z.jpg", 0),)}))
    assert [record.path for record in datasets.load("shop", tmp_path).train.records] == ["z.jpg"]
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == ["index.csv", "index.json"]


def test_counts_leave_unknown_identities_out(tmp_path):
    random = np.random.default_rng(3)
    rows = [ImageRecord(str(n), int(random.integers(4)), int(random.integers(-1, 6))) for n in range(50)]
    assert index.counts(Split(tmp_path, tuple(rows))) == {
        "images": 50,
        "identities": len({row.identity for row in rows if row.identity >= 0}),
        "cameras": len({row.camera for row in rows}),
    }
    people = index.counts(Split(tmp_path, tuple(rows)), distractor=0)["identities"]
    assert people == len({row.identity for row in rows if row.identity > 0})


def test_an_unknown_benchmark_names_the_known():
    with pytest.raises(
        DatasetError, match="no published data set 'markt'; there are dukemtmcreid, market1501"
    ):
        datasets.benchmark("markt")
