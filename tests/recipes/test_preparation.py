"""Preparation as a whole: what is bad is named, what was there is kept, nothing is half there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icsr_cli import datasets
from icsr_cli.datasets import archives, index
from icsr_cli.errors import DatasetError, UsageError
from icsr_cli.images import decode
from icsr_cli.images.decode import decode_resized
from icsr_cli.images.store import open_pixels
from icsr_cli.progress import Progress, Task
from icsr_cli.recipes.preparation import OwnCrops, prepare, prepare_folder, prepare_synthetic, verify
from icsr_cli.synthesis import World, tracks_of

SIZE = (16, 8)


def encoded(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def market(root: Path, train: int = 6) -> Path:
    names = [f"bounding_box_train/{n:04d}_c{n % 6 + 1}s1_{n:06d}_00.png" for n in range(1, train + 1)]
    names += ["query/0900_c1s1_000001_00.png", "bounding_box_test/0900_c2s1_000001_00.png"]
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(number))
    return root


def archive(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for file in sorted(folder.rglob("*.png")):
            opened.write(file, f"Market/{file.relative_to(folder).as_posix()}")
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below, without locks and without what a build may keep to go on from."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix != ".lock"
        and ".part" not in path.name
        and path.name != ".prepare.lock"
    }


def bad_images(folder: Path, tmp_path: Path) -> dict[str, str]:
    """Write one file of every bad kind into a training folder; give their names and reasons."""
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    contents = {
        "0001_c1s1_empty.jpg": (b"", "empty file"),
        "0001_c1s1_text.jpg": (b"<html>404</html>", "not an image"),
        "0001_c1s1_cut.jpg": (encoded(1, "JPEG")[:400], ""),
        "0001_c1s1_cut.png": (encoded(1)[:150], ""),
        "0001_c1s1_bomb.png": (bomb.getvalue(), "more than 64,000,000 pixels"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    (folder / "0001_c1s1_gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    reasons = {name: reason for name, (_, reason) in contents.items()}
    return {**reasons, "0001_c1s1_gone.jpg": "no such file or directory"}


def test_bad_images_are_named_and_left_out(tmp_path):
    root = market(tmp_path / "M")
    reasons = bad_images(root / "bounding_box_train", tmp_path)
    with pytest.raises(
        DatasetError, match=r"6 of 12 images of the train split cannot be read, more than 1%.*--allow-"
    ):
        prepare("market1501", root, tmp_path / "data", size=SIZE)
    assert not (tmp_path / "data" / "market1501" / "index.json").exists()

    report = prepare("market1501", root, tmp_path / "data", size=SIZE, allow_bad=True)
    assert {Path(item.path).name for item in report.bad} == set(reasons)
    for item in report.bad:
        assert reasons[Path(item.path).name] in item.reason
        assert item.reason
        assert str(tmp_path) not in item.reason
    assert (report.splits[0].images, report.splits[0].bad) == (6, 6)
    head = json.loads((tmp_path / "data" / "market1501" / "index.json").read_text())
    assert {Path(item["path"]).name for item in head["bad"]} == set(reasons)

    train = datasets.load("market1501", tmp_path / "data").train
    pixels = open_pixels(train, tmp_path / "data" / "market1501" / "pixels", *SIZE, name="train")
    for row, record in enumerate(train.records):
        np.testing.assert_array_equal(pixels[row], decode_resized(root / record.path, *SIZE))


def test_one_percent_is_the_limit(tmp_path):
    root = market(tmp_path / "M", train=199)
    spoilt = sorted((root / "bounding_box_train").iterdir())
    spoilt[0].write_bytes(b"")
    (root / "bounding_box_train" / "0200_c1s1_000200_00.png").write_bytes(b"")
    report = prepare("market1501", root, tmp_path / "data", size=SIZE)
    assert (report.splits[0].images, report.splits[0].bad) == (198, 2)
    assert any("2 images cannot be read: left out" in note for note in report.notes)
    spoilt[1].write_bytes(b"")
    with pytest.raises(DatasetError, match="3 of 200 images"):
        prepare("market1501", root, tmp_path / "data", size=SIZE)
    assert len(datasets.load("market1501", tmp_path / "data").train) == 198, "the old index is still there"


def test_nothing_readable_is_an_error_whatever_is_allowed(tmp_path):
    root = market(tmp_path / "M")
    next((root / "query").iterdir()).write_bytes(b"")
    with pytest.raises(DatasetError, match="None of the 1 images of the query split can be read"):
        prepare("market1501", root, tmp_path / "data", size=SIZE, allow_bad=True)


def test_every_image_is_decoded_once(tmp_path, monkeypatch):
    root = market(tmp_path / "M")
    seen: list[str] = []

    def spy(path, height, width):
        seen.append(path)
        return decode_resized(path, height, width)

    monkeypatch.setattr(decode, "decode_resized", spy)
    prepare("market1501", root, tmp_path / "data", size=SIZE)
    assert len(seen) == len(set(seen)) == 8
    dataset = datasets.load("market1501", tmp_path / "data")
    for name, split in dataset.splits.items():
        open_pixels(split, tmp_path / "data" / "market1501" / "pixels", *SIZE, name=name)
    prepare("market1501", root, tmp_path / "data", size=SIZE)
    assert len(seen) == 8, "neither training nor a second preparation decodes again"


class Stop(Progress):
    """Stands for Ctrl-C while the bar of this title moves."""

    def __init__(self, title: str) -> None:
        self.title = title

    def task(self, title, total, unit="it"):
        class Stopping(Task):
            def advance(self, count: int = 1) -> None:
                if count:
                    raise KeyboardInterrupt

        return Stopping() if title.startswith(self.title) else Task()


def test_interrupted_while_unpacking(tmp_path):
    data = tmp_path / "data"
    first = archive(market(tmp_path / "M"), tmp_path / "first.zip")
    prepare("market1501", first, data, size=SIZE)
    before = snapshot(data)
    second = archive(market(tmp_path / "N", train=9), tmp_path / "second.zip")
    with pytest.raises(KeyboardInterrupt):
        prepare("market1501", second, data, size=SIZE, progress=Stop("unpack"))
    assert snapshot(data) == before
    assert not list((data / "market1501").glob(".*.tmp"))


def test_interrupted_while_decoding_goes_on_without_unpacking_again(tmp_path, monkeypatch):
    data = tmp_path / "data"
    source = archive(market(tmp_path / "M"), tmp_path / "a.zip")
    with pytest.raises(KeyboardInterrupt):
        prepare("market1501", source, data, size=SIZE, progress=Stop("train"))
    with pytest.raises(DatasetError, match="not prepared"):
        datasets.load("market1501", data)
    monkeypatch.setattr(archives, "unpack", None)
    assert prepare("market1501", source, data, size=SIZE).splits[0].images == 6


def test_a_new_source_takes_the_place_of_the_old(tmp_path):
    data = tmp_path / "data"
    prepare("market1501", archive(market(tmp_path / "M"), tmp_path / "a.zip"), data, size=SIZE)
    own = [data / "market1501" / name for name in ("unpacked-mine", "rendered-2026", "unpacked-0123abcde")]
    for folder in own:
        folder.mkdir()
    prepare("market1501", archive(market(tmp_path / "N", train=9), tmp_path / "b.zip"), data, size=SIZE)
    assert len(datasets.load("market1501", data).train) == 9
    assert all(folder.is_dir() for folder in own)
    assert len(list((data / "market1501").glob("unpacked-*"))) == 1 + 2


def test_the_wrong_archive_leaves_what_was_there(tmp_path):
    data = tmp_path / "data"
    prepare("market1501", archive(market(tmp_path / "M"), tmp_path / "a.zip"), data, size=SIZE)
    before = snapshot(data)
    (tmp_path / "W").mkdir()
    (tmp_path / "W" / "x.png").write_bytes(encoded(0))
    with pytest.raises(DatasetError, match="No Market-1501 at or below"):
        prepare("market1501", archive(tmp_path / "W", tmp_path / "w.zip"), data, size=SIZE)
    assert snapshot(data) == before


def test_a_source_folder_is_never_touched(tmp_path):
    root = market(tmp_path / "data" / "market1501" / "unpacked-by-hand")
    before = snapshot(root)
    prepare("market1501", root, tmp_path / "data", size=SIZE)
    prepare("market1501", None, tmp_path / "data", size=SIZE)
    assert snapshot(root) == before


def test_two_at_once(tmp_path):
    root = market(tmp_path / "M")

    class Second(Progress):
        def task(self, title, total, unit="it"):
            with pytest.raises(DatasetError, match="Another icsr prepare is at work"):
                prepare("market1501", root, tmp_path / "data", size=SIZE)
            return Task()

    prepare("market1501", root, tmp_path / "data", size=SIZE, progress=Second())


FILL = """
import sys
from pathlib import Path
from icsr_cli.errors import IcsrError
from icsr_cli.recipes.preparation import prepare
try:
    prepare("market1501", Path(sys.argv[1]), Path(sys.argv[2]), size=(512, 512))
except IcsrError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("train", [3, 40])
def test_a_disk_that_is_really_full(small_disk, tmp_path, train):
    root = market(tmp_path / "M", train=train)
    prepare("market1501", market(tmp_path / "S", train=2), small_disk / "data", size=SIZE)
    before = snapshot(small_disk)
    command = [sys.executable, "-c", FILL, str(root), str(small_disk / "data")]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    assert "are free" in run.stdout or "No space left" in run.stdout
    kept = snapshot(small_disk)
    assert {name: kept[name] for name in before if name.startswith("data/market1501/index")} == {
        name: before[name] for name in before if name.startswith("data/market1501/index")
    }
    assert len(datasets.load("market1501", small_disk / "data").train) == 2


def test_verify_reads_everything_again(tmp_path):
    root = market(tmp_path / "M")
    prepare("market1501", root, tmp_path / "data", size=SIZE)
    report = verify("market1501", tmp_path / "data")
    assert (report.sound, report.images) == (True, 8)
    victims = sorted((root / "bounding_box_train").iterdir())
    victims[0].unlink()
    victims[1].write_bytes(victims[1].read_bytes()[:99])
    store = tmp_path / "data" / "market1501" / "pixels" / "query-16x8.npy"
    store.write_bytes(store.read_bytes()[:-1] + b"?")
    report = verify("market1501", tmp_path / "data")
    assert [Path(item.path).name for item in report.bad] == [victims[0].name, victims[1].name]
    assert len(report.stores) == 1
    assert not report.sound


def world(**dials) -> World:
    small = {"train_identities": 3, "test_identities": 2, "cameras": 2, "cameras_per_person": (2, 2)}
    return World.preset(
        "default", **{**small, "distractors": 2, "junk": 1, "height": 32, "width": 16, **dials}
    )


def test_synthetic_worlds_beside_each_other(tmp_path):
    report = prepare_synthetic(world(), tmp_path)
    assert [row.identities for row in report.splits] == [3, 2, 2]
    listed = index.head(tmp_path, "synthetic")["splits"]
    assert [found["identities"] for found in listed.values()] == [3, 2, 2]
    assert (report.splits[2].distractors, report.splits[2].ignored) == (2, 1)
    assert report.cameras == ("c1", "c2")
    prepare_synthetic(world(seed=1), tmp_path, name="second")
    first, second = datasets.load("synthetic", tmp_path), datasets.load("second", tmp_path)
    assert first.layout == second.layout == "synthetic"
    assert index.head(tmp_path, "second")["details"]["world"]["seed"] == 1
    assert datasets.newest(tmp_path) == "second"


def test_what_a_killed_rendering_left_goes_with_the_next(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("icsr_cli.files.shutil.rmtree", lambda *_, **__: None)  # nobody clears up after SIGKILL
        with pytest.raises(KeyboardInterrupt):
            prepare_synthetic(world(), tmp_path, workers=1, progress=Stop("rendering"))
    folder = tmp_path / "synthetic"
    assert list(folder.glob(".rendered-*"))
    prepare_synthetic(world(seed=5), tmp_path, workers=1)
    assert [path.name for path in folder.glob(".*")] == [".prepare.lock"]


def test_a_world_is_rendered_once_and_replaced_by_another(tmp_path, monkeypatch):
    root = prepare_synthetic(world(), tmp_path).root
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    assert prepare_synthetic(world(), tmp_path).root == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")} == stamps
    other = prepare_synthetic(world(seed=5), tmp_path).root
    assert other != root
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("market1501", "another kind"),
        ("folder", "another kind"),
        ("synthetic", "another kind"),
        ("../up", "cannot be the name"),
        ("", "cannot be the name"),
        (".hidden", "cannot be the name"),
        ("x" * 101, "at most 100"),
    ],
)
def test_names_that_are_taken_or_no_names(name, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        prepare_folder(name, tmp_path, tmp_path / "data", OwnCrops("{camera}/*"))
    assert not (tmp_path / "data").exists()


def test_a_name_is_not_taken_over_by_another_kind(tmp_path):
    prepare_synthetic(world(), tmp_path, name="mine")
    with pytest.raises(UsageError, match="is a data set of another kind"):
        prepare_folder("mine", tmp_path, tmp_path, OwnCrops("{camera}/*"))


def own(root: Path) -> Path:
    for number, name in enumerate(["door/1.png", "door/2.png", "till/1.PNG", "loose.png"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(number))
    return root


def test_own_crops_from_a_folder_an_archive_and_a_table(tmp_path):
    source = own(tmp_path / "crops")
    report = prepare_folder("a", source, tmp_path / "data", OwnCrops("{camera}/{name}.png"), size=SIZE)
    assert [(row.split, row.images, row.cameras) for row in report.splits] == [("train", 3, 2)]
    assert [item.path for item in report.unread] == ["loose.png"]
    packed = archive(source, tmp_path / "crops.zip")
    crops = OwnCrops("Market/{camera}/{name}.png")
    prepare_folder("b", packed, tmp_path / "data", crops, size=SIZE)
    (source / "t.csv").write_text("path,camera\ndoor/1.png,1\nno.png,2\n")
    crops = OwnCrops(table=source / "t.csv")
    report = prepare_folder("c", None, tmp_path / "data", crops, size=SIZE, allow_bad=True)
    assert [(item.path, item.reason) for item in report.bad] == [("no.png", "no such file or directory")]
    for name, count in (("a", 3), ("b", 2), ("c", 1)):  # zips above hold *.png only
        dataset = datasets.load(name, tmp_path / "data")
        assert len(dataset.train) == count
        assert dataset.layout == "folder"
        assert verify(name, tmp_path / "data").sound


def test_own_crops_want_one_description(tmp_path):
    for options in ({}, {"pattern": "{camera}/*", "table": tmp_path / "t.csv"}):
        with pytest.raises(UsageError, match="Give either --pattern"):
            OwnCrops(**options)
    with pytest.raises(UsageError, match="--pattern needs --source"):
        OwnCrops("{camera}/*").read(None)


def test_file_rights_that_forbid(tmp_path):
    root = market(tmp_path / "M")
    (root / "query").chmod(0)
    if os.access(root / "query", os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(DatasetError, match="Cannot list the folder"):
        prepare("market1501", root, tmp_path / "data", size=SIZE)
    (root / "query").chmod(0o755)


def test_an_archive_at_the_published_place_is_found(tmp_path):
    place = tmp_path / "data" / "market1501" / "Market-1501-v15.09.15.zip"
    place.parent.mkdir(parents=True)
    archive(market(tmp_path / "M"), place)
    assert prepare("market1501", None, tmp_path / "data", size=SIZE).splits[0].images == 6


def test_an_incomplete_folder_at_the_published_place_is_said(tmp_path):
    market(tmp_path / "data" / "market1501" / "Market-1501-v15.09.15")
    next((tmp_path / "data").rglob("query")).rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="incomplete: query is missing"):
        prepare("market1501", None, tmp_path / "data", size=SIZE)


def test_synthetic_tracks_and_clutter_are_known(tmp_path):
    report = prepare_synthetic(world(clutter=0.5, impure_tracks=0.5), tmp_path)
    train = datasets.load("synthetic", tmp_path).train
    known = tracks_of(world(clutter=0.5, impure_tracks=0.5))
    for record in train.records:
        assert (record.track, record.frame) == known.get(record.path, (-1, -1))
    nobody = train.identities == -1
    assert nobody.sum() == round((~nobody).sum() * 0.5) > 0
    assert (train.tracks[nobody] == -1).all()
    assert (train.tracks[~nobody] >= 0).all()
    people = {track: set(train.identities[train.tracks == track]) for track in set(train.tracks[~nobody])}
    assert max(map(len, people.values())) == 2
    assert "identities are in train and in query" not in " ".join(report.notes)
