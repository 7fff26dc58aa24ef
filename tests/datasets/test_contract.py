"""What holds for every published data set, in every layout it comes in."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy.io import savemat

from icsr_cli import datasets
from icsr_cli.datasets import places
from icsr_cli.datasets.layout import SPLITS, Count
from icsr_cli.errors import DatasetError
from icsr_cli.recipes.preparation import prepare


def test_each_data_set_has_a_tree(trees):
    assert {name for name, _ in trees.values()} == set(datasets.available())
    assert set(datasets.available()) == {"market1501", "msmt17", "personx", "dukemtmcreid", "veri", "mars"}


def test_describes_itself(published):
    about = datasets.benchmark(published[0])
    assert about.name == published[0]
    assert all([about.title, about.licence, about.citation, about.ask, about.place, about.expected()])
    assert set(about.counts) == set(SPLITS)
    assert any(name.rpartition("/")[2] in about.expected() for name in published[1].files)


@pytest.mark.parametrize(
    ("name", "images", "identities", "shape"),
    [
        ("market1501", (12_936, 3_368, 15_913), 751, (256, 128)),
        ("msmt17", (32_621, 11_659, 82_161), 1_041, (256, 128)),
        ("personx", (9_840, 5_136, 30_816), 410, (256, 128)),
        ("dukemtmcreid", (16_522, 2_228, 17_661), 702, (256, 128)),
        ("veri", (37_778, 1_678, 11_579), 576, (224, 224)),
    ],
)
def test_published_figures(name, images, identities, shape):
    about = datasets.benchmark(name)
    assert tuple(about.counts[split].images for split in SPLITS) == images
    assert about.counts["train"].identities == identities
    assert (about.height, about.width) == shape


def test_published_figures_of_mars():
    """The parts of its test images are published as tracks only."""
    counts = datasets.benchmark("mars").counts
    assert counts["train"] == Count(509_914, 625, 8_298)
    assert (counts["query"].tracks, counts["gallery"].tracks) == (1_980, 9_330)


def test_mars_says_where_tracks_are_missing_and_what_is_damaged(trees, tmp_path):
    root = trees["mars"][1].write(tmp_path / "M")
    report = prepare("mars", root, tmp_path / "data", size=(16, 8))
    assert [row.tracks for row in report.splits] == [2, 1, 2]
    assert report.differences == (
        "train: 3 images of 2 identities in 2 tracks; published are 509,914 of 625 in 8,298",
        "query: 1 tracks; published are 1,980",
        "gallery: 2 tracks; published are 9,330",
    )
    (root / "info" / "query_IDX.mat").write_bytes(b"MATLAB 5.0" + bytes(200))
    with pytest.raises(DatasetError, match="Get the folder info again"):
        prepare("mars", root, tmp_path / "data")
    for odd in (9, 0, -1):
        savemat(root / "info" / "query_IDX.mat", {"query_IDX": np.array([[odd]])})
        with pytest.raises(DatasetError, match="cannot be read"):
            prepare("mars", root, tmp_path / "data")


def test_reads_the_records_at_any_depth(published, tmp_path):
    name, tree = published
    root = tree.write(tmp_path / "down" / "loads" / "X")
    reading = datasets.benchmark(name).read(tmp_path)
    assert reading.root == root
    assert dict(reading.splits) == dict(tree.splits)
    assert {key: count for key, count in reading.ignored.items() if count} == {
        key: count for key, count in tree.ignored.items() if count
    }
    assert not reading.unread
    cameras = {record.camera for records in reading.splits.values() for record in records}
    assert cameras <= set(range(len(reading.camera_names)))


def test_reads_from_one_of_its_folders(published, tmp_path):
    name, tree = published
    root = tree.write(tmp_path / "X")
    inner = next(iter(tree.splits["train"])).path.split("/")[0]
    assert datasets.benchmark(name).read(root / inner).root == root


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_prepares_from_an_archive(published, suffix, tmp_path, packer):
    name, tree = published
    archive = packer(tree.write(tmp_path / "Downloaded"), tmp_path / f"a.{suffix}")
    report = prepare(name, archive, tmp_path / "data", size=(16, 8))
    dataset = datasets.load(name, tmp_path / "data")
    assert {split: found.records for split, found in dataset.splits.items()} == dict(tree.splits)
    assert all((dataset.root / record.path).is_file() for record in dataset.train.records)
    assert dataset.layout == name
    assert dataset.root.is_relative_to(tmp_path / "data" / name)
    assert len(report.differences) == 3, "tiny trees never have the published counts, and that is said"


@pytest.mark.parametrize("where", ["data", "examples/data"])
def test_is_found_where_the_published_code_has_it(published, where, tmp_path):
    name, tree = published
    place = datasets.benchmark(name).place
    tree.write(tmp_path / where / name / place)
    report = prepare(name, None, tmp_path / "data", size=(16, 8))
    assert report.root == tmp_path / where / name / place
    assert [row.images for row in report.splits] == [len(tree.splits[row.split]) for row in report.splits]


def test_archives_of_every_kind_are_found(tmp_path):
    market = datasets.benchmark("market1501")
    for ending in ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz"):
        (tmp_path / ending / "market1501").mkdir(parents=True)
        archive = tmp_path / ending / "market1501" / f"{market.place}.{ending}"
        archive.touch()
        assert places.published(market, tmp_path / ending) == archive


def test_a_missing_split_is_said(published, tmp_path):
    name, tree = published
    root = tree.write(tmp_path / "X")
    gallery = tree.splits["gallery"][0].path.split("/")[0]
    shutil.rmtree(root / gallery)
    with pytest.raises(DatasetError, match=f"(?s)incomplete: {gallery} is missing. Expected:.*{gallery}"):
        prepare(name, tmp_path, tmp_path / "data")
    assert not (tmp_path / "data" / name / "index.json").exists()


def test_nothing_there_is_said(published, tmp_path):
    name, _ = published
    with pytest.raises(DatasetError, match=r"(?s)was not found.*--source PATH.*Expected"):
        prepare(name, None, tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        prepare(name, tmp_path / "no.zip", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"(?s)No .* at or below"):
        prepare(name, tmp_path / "empty", tmp_path)


def test_counts_that_differ_are_said_with_the_published_ones(trees, tmp_path):
    trees["market1501"][1].write(tmp_path / "M")
    report = prepare("market1501", tmp_path / "M", tmp_path / "data", size=(16, 8))
    assert report.differences[0] == ("train: 3 images of 2 identities; published are 12,936 of 751")
    gallery = report.splits[2]
    assert (gallery.images, gallery.identities, gallery.distractors, gallery.ignored) == (2, 1, 1, 2)


def test_duke_says_that_it_was_withdrawn(trees, tmp_path):
    trees["dukemtmcreid"][1].write(tmp_path / "D")
    report = prepare("dukemtmcreid", tmp_path / "D", tmp_path / "data", size=(16, 8))
    assert "withdrawn by its authors in 2019" in report.notes[0]
    assert datasets.load("dukemtmcreid", tmp_path / "data").notes[0] == report.notes[0]


def test_names_that_do_not_fit_are_named(trees, tmp_path, image_bytes):
    root = trees["market1501"][1].write(tmp_path / "M")
    for name in ("holiday.jpg", "0002_c7s1_000451_03.jpg", "._0002_c1s1_000451_03.jpg"):
        (root / "bounding_box_train" / name).write_bytes(image_bytes())
    report = prepare("market1501", root, tmp_path / "data", size=(16, 8))
    assert {(item.path, item.reason) for item in report.unread} == {
        ("bounding_box_train/holiday.jpg", "the name does not fit"),
        ("bounding_box_train/0002_c7s1_000451_03.jpg", "there is no camera 7"),
    }
    assert any("2 files passed over" in note and "holiday.jpg" in note for note in report.notes)
    for path in (root / "query").iterdir():
        path.rename(path.with_name("photo.jpg"))
    with pytest.raises(
        DatasetError, match=r"(?s)query can be read: 1 image file,.*photo.jpg.*0002_c1s1_000451_03"
    ):
        prepare("market1501", root, tmp_path / "data")


def test_other_suffixes_and_odd_names(trees, tmp_path, image_bytes):
    root = trees["market1501"][1].write(tmp_path / "M")
    odd = ["0009_c1s1_ü 漢字 x.JPG", "0009_c2s1_1.PnG", "0009_c3s1_1.jpeg", '0009_c4s1_",\n\r.webp']
    for name in odd:
        (root / "bounding_box_train" / name).write_bytes(image_bytes())
    prepare("market1501", root, tmp_path / "data", size=(16, 8))
    train = datasets.load("market1501", tmp_path / "data").train
    found = {record.path for record in train.records if record.identity == 9}
    assert found == {f"bounding_box_train/{name}" for name in odd}


def test_the_same_name_with_two_suffixes_is_said(trees, tmp_path, image_bytes):
    root = trees["market1501"][1].write(tmp_path / "M")
    (root / "query" / "0001_c1s1_001051_00.png").write_bytes(image_bytes())
    report = prepare("market1501", root, tmp_path / "data", size=(16, 8))
    assert any("1 names are there twice" in note for note in report.notes)


def test_msmt_lists_that_cannot_be_right(trees, tmp_path):
    root = trees["msmt17 v1"][1].write(tmp_path / "M")
    good = (root / "list_train.txt").read_text()
    (root / "list_train.txt").write_text(
        good
        + "../../etc/0000_000_01_x.jpg 0\n/0000_000_01_x.jpg 0\nno line\n0000/0000_000_16_x.jpg 0\n\n"
        + "0000/0000_000_01_\0x.jpg 0\n"
    )
    reading = datasets.benchmark("msmt17").read(root)
    assert dict(reading.splits) == dict(trees["msmt17 v1"][1].splits)
    assert [item.reason for item in reading.unread] == [
        "the path leads out of the folder",
        "the path leads out of the folder",
        "the line does not fit",
        "there is no camera 16",
        "no file has a NUL in its path",
    ]
    (root / "list_train.txt").write_text(good + good)
    with pytest.raises(DatasetError, match=r"2 images listed twice in list_train.txt"):
        datasets.benchmark("msmt17").read(root)
    (root / "list_query.txt").write_text("nothing\n")
    (root / "list_train.txt").write_text(good)
    with pytest.raises(DatasetError, match=r"No line of list_query.txt.*nothing"):
        datasets.benchmark("msmt17").read(root)


def test_msmt_images_that_are_listed_and_not_there_are_named(trees, tmp_path):
    root = trees["msmt17 v1"][1].write(tmp_path / "M")
    (root / trees["msmt17 v1"][1].splits["train"][0].path).unlink()
    report = prepare("msmt17", root, tmp_path / "data", size=(16, 8), allow_bad=True)
    assert [(item.split, item.path, item.reason) for item in report.bad] == [
        ("train", "train/0000/0000_000_01_0303morning_0008_0.jpg", "no such file or directory")
    ]
    assert report.splits[0].images == 2
