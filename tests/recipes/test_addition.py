"""New crops into a prepared data set: what was there keeps its place, its numbers and its pixels."""

from __future__ import annotations

import io
import json
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from icsr_cli import datasets
from icsr_cli.cli.main import app
from icsr_cli.datasets import places
from icsr_cli.images import store
from icsr_cli.recipes import preparation
from icsr_cli.types import Dataset


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 6, 3), dtype=np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


def write(folder: Path, *names: str, seed: int = 0) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(100 * seed + number))
    return folder


def icsr(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["prepare", "folder", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ICSR_DATA", raising=False)
    return tmp_path


def rows(dataset: Dataset, split: str = "train") -> list[tuple[object, ...]]:
    return [(r.path, r.camera, r.identity, r.track, r.frame) for r in dataset.splits[split].records]


FIRST = ("b/7/10.png", "b/7/11.png", "c/7/12.png")


@pytest.fixture
def shop(home: Path) -> Dataset:
    write(home / "crops", *FIRST)
    icsr("shop", "--source", "crops", "--pattern", "{camera}/{track}/{frame}.png", "--size", "12x6")
    return datasets.load("shop", home / "data")


def test_new_cameras_tracks_and_frames_come_behind(home: Path, shop: Dataset) -> None:
    pixels = np.load(home / "data/shop/pixels/train-12x6.npy")
    write(home / "week2", "a/1/3.png", "b/7/4.png", "b/9/5.png", seed=1)
    result = icsr("shop", "--add", "week2")
    found = datasets.load("shop", home / "data")
    assert found.camera_names == ("b", "c", "a")
    assert rows(found)[:3] == rows(shop)
    # The frames of camera b ended at 11, and began again at 4: all are moved on by 8.
    assert rows(found)[3:] == [
        ("../week2/a/1/3.png", 2, -1, 4, 11),
        ("../week2/b/7/4.png", 0, -1, 2, 12),
        ("../week2/b/9/5.png", 0, -1, 3, 13),
    ]
    assert "frames of new images were moved on by 8" in result.stderr
    after = np.load(home / "data/shop/pixels/train-12x6.npy")
    assert after.shape[0] == 6
    np.testing.assert_array_equal(after[:3], pixels)
    for path, image in zip((r.path for r in found.train.records), after, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(found.root / path)), image)


def test_frames_are_moved_on_where_they_must_be(home: Path, shop: Dataset) -> None:
    write(home / "week2", "1.png", seed=1)
    (home / "new.csv").write_text("path,camera,split,id\n1.png,b,test,7\n")
    said = icsr("shop", "--add", "week2", "--csv", "new.csv", code=1).stderr
    assert "Unknown splits test" in " ".join(said.split())
    (home / "new.csv").write_text("path,camera\n1.png,b\n")
    assert "moved on" not in icsr("shop", "--add", "week2", "--csv", "new.csv").stderr
    write(home / "week3", "b/8/100.png", "b/8/20.png", seed=2)  # the last is not the latest
    icsr("shop", "--add", "week3")
    write(home / "week4", "b/9/50.png", seed=3)
    assert "moved on by 51" in icsr("shop", "--add", "week4").stderr
    write(home / "week5", "b/9/101.png", seed=4)  # the moment of the last
    assert "moved on by 1:" in icsr("shop", "--add", "week5").stderr


def test_later_frames_stay_as_they_are(home: Path, shop: Dataset) -> None:
    write(home / "week2", "b/1/12.png", "a/1/0.png", seed=1)
    icsr("shop", "--add", "week2")
    assert {r[4] for r in rows(datasets.load("shop", home / "data"))[3:]} == {0, 12}


def test_adding_twice_and_to_the_same_folder(home: Path, shop: Dataset) -> None:
    write(home / "crops", "b/8/20.png", seed=1)
    icsr("shop", "--add", "crops")
    assert rows(datasets.load("shop", home / "data"))[3:] == [("b/8/20.png", 0, -1, 2, 20)]
    before = (home / "data/shop/index.csv").read_bytes()
    said = icsr("shop", "--add", "crops", code=1).stderr
    assert "There is nothing new under" in said
    assert "4 images are there already, by name or by content, such as" in " ".join(said.split())
    assert "do not fit" not in said
    assert (home / "data/shop/index.csv").read_bytes() == before
    write(home / "week3", "d/1/1.png", seed=3)
    said = icsr("shop", "--add", "week3").stderr
    assert said.count("images were added from") == 1, "what was told before is not told again"
    assert len([note for note in datasets.load("shop", home / "data").notes if "were added" in note]) == 2
    details = json.loads((home / "data/shop/index.json").read_text())["details"]
    assert [Path(one["source"]).name for one in details["added"]] == ["crops", "week3"]


def test_two_at_once_lose_nothing(home: Path, shop: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "week2", "b/1/40.png", seed=1)
    write(home / "week3", "b/1/50.png", seed=2)
    alone = places.alone

    def late(folder: Path) -> AbstractContextManager[None]:
        """Another begins and ends just before this one is alone."""
        monkeypatch.setattr(places, "alone", alone)
        icsr("shop", "--add", "week2")
        return alone(folder)

    monkeypatch.setattr(places, "alone", late)
    icsr("shop", "--add", "week3")
    assert [r[0] for r in rows(datasets.load("shop", home / "data"))[3:]] == [
        "../week2/b/1/40.png",
        "../week3/b/1/50.png",
    ]


def test_tracks_come_behind_those_of_every_split(home: Path) -> None:
    write(home / "crops", "1.png", "2.png", "3.png", "4.png")
    lines = ("1.png,a,train,0,4", "2.png,b,train,0,5", "3.png,a,query,1,6", "4.png,b,gallery,1,")
    (home / "list.csv").write_text("\n".join(("path,camera,split,id,track", *lines, "")))
    icsr("shop", "--csv", "list.csv", "--source", "crops", "--size", "12x6")
    known = {r[3] for split in ("train", "query") for r in rows(datasets.load("shop", home / "data"), split)}
    write(home / "week2", "1.png", seed=1)
    (home / "new.csv").write_text("path,camera,track\n1.png,a,4\n")
    icsr("shop", "--add", "week2", "--csv", "new.csv")
    assert rows(datasets.load("shop", home / "data"))[2][3] == max(known) + 1


def test_two_of_one_size_are_copies(home: Path, shop: Dataset) -> None:
    write(home / "week2", "e/1/1.png", "e/1/2.png", seed=2)
    for name in "12":
        Image.new("RGB", (90, 90), "red").save(home / f"week2/e/1/{name}.png")
    report = json.loads(icsr("shop", "--add", "week2", "--json").stdout)
    assert [item["path"] for item in report["unread"]] == ["../week2/e/1/2.png"]


def test_copies_are_named(home: Path, shop: Dataset) -> None:
    write(home / "week2", "e/1/1.png", "e/1/2.png", seed=2)
    (home / "week2/e/1/3.png").write_bytes((home / "crops/c/7/12.png").read_bytes())
    (home / "week2/e/1/4.png").write_bytes((home / "week2/e/1/1.png").read_bytes())
    report = json.loads(icsr("shop", "--add", "week2", "--json").stdout)
    assert {(item["path"], item["reason"]) for item in report["unread"]} == {
        ("../week2/e/1/3.png", "it is there already as c/7/12.png"),
        ("../week2/e/1/4.png", "it is there already as ../week2/e/1/1.png"),
    }
    assert report["splits"][0]["images"] == 5


def test_notes_of_identities_do_not_outlive_them(home: Path) -> None:
    write(home / "crops", *(f"{person}/{camera}/1.png" for person in ("Anna", "Bob") for camera in "ab"))
    pattern = "{id}/{camera}/{name}.png"
    told = icsr("shop", "--source", "crops", "--pattern", pattern, "--dry-run", "--json").stdout
    assert {example[2] for example in json.loads(told)["examples"]} == {"Anna", "Bob"}
    icsr("shop", "--source", "crops", "--pattern", pattern, "--size", "12x6")
    assert any("every image has an id" in note for note in datasets.load("shop", home / "data").notes)
    write(home / "more", "Carl/a/1.png", seed=9)
    icsr("shop", "--add", "more")
    notes = datasets.load("shop", home / "data").notes
    assert [note for note in notes if "id" in note.split()] == []
    listed = CliRunner().invoke(app, ["prepare", "--list"]).stdout
    assert f"shop: folder: {home}" in listed


def test_identities_keep_their_names(home: Path) -> None:
    write(
        home / "crops",
        *(f"{camera}/{who}_{n}.png" for who in ("zoe", "ann") for camera in "ab" for n in "12"),
    )
    write(home / "crops", "a/_1.png", "b/_2.png", seed=5)
    (home / "list.csv").write_text(
        "path,camera,id\n"
        + "".join(
            f"{path.relative_to(home / 'crops')},{path.parent.name},{path.stem.partition('_')[0]}\n"
            for path in sorted((home / "crops").rglob("*.png"))
        )
    )
    icsr("shop", "--csv", "list.csv", "--source", "crops", "--size", "12x6")
    first = datasets.load("shop", home / "data")
    write(home / "week2", "a/zoe_9.png", "c/bob_1.png", "c/ann_1.png", "a/_9.png", seed=6)
    assert "made of a CSV file" in icsr("shop", "--add", "week2", code=2).stderr
    (home / "new.csv").write_text(
        "path,camera,id\na/zoe_9.png,a,zoe\nc/bob_1.png,c,bob\nc/ann_1.png,c,ann\na/_9.png,a,\n"
    )
    icsr("shop", "--add", "week2", "--csv", "new.csv")
    found = datasets.load("shop", home / "data")
    for split in ("train", "query", "gallery"):
        assert rows(found, split)[: len(first.splits[split])] == rows(first, split)
    # zoe and ann are looked for, so they go to the gallery; bob is new, and the last has no name.
    assert rows(found, "train")[2:] == [
        ("../week2/c/bob_1.png", 2, 2, -1, -1),
        ("../week2/a/_9.png", 0, -1, -1, -1),
    ]
    assert {(r[0], r[2]) for r in rows(found, "gallery")[len(first.splits["gallery"]) :]} == {
        ("../week2/a/zoe_9.png", 1),
        ("../week2/c/ann_1.png", 0),
    }
    assert found.splits["query"].records == first.splits["query"].records
    # Images of nobody do not take the names away.
    write(home / "week3", "a/_7.png", seed=7)
    (home / "new.csv").write_text("path,camera\na/_7.png,a\n")
    icsr("shop", "--add", "week3", "--csv", "new.csv")
    write(home / "week4", "a/ann_7.png", seed=8)
    (home / "new.csv").write_text("path,camera,id\na/ann_7.png,a,ann\n")
    icsr("shop", "--add", "week4", "--csv", "new.csv")
    added = rows(datasets.load("shop", home / "data"), "gallery")[-1]
    assert added == ("../week4/a/ann_7.png", 0, 0, -1, -1)


@pytest.mark.parametrize("fault", ["disk", "interrupt", "gone", "unreadable"])
def test_a_fault_leaves_what_was_there(fault: str, home: Path, shop: Dataset) -> None:
    write(home / "week2", "b/1/40.png", seed=1)
    if fault == "gone":
        (home / "crops" / FIRST[0]).unlink()
    elif fault == "unreadable":
        (home / "week2/b/1/41.png").write_bytes(b"no image")
    with pytest.MonkeyPatch.context() as patch:
        if fault in ("disk", "interrupt"):

            def stop(*arguments: object, **options: object) -> None:
                raise (OSError(28, "No space left on device") if fault == "disk" else KeyboardInterrupt)

            patch.setattr(preparation.index, "write", stop)
        result = CliRunner().invoke(app, ["prepare", "folder", "shop", "--add", "week2"])
    assert result.exit_code != 0
    if fault == "gone":
        assert "cannot be read any more" in result.stderr
        write(home / "crops", FIRST[0])
    assert rows(datasets.load("shop", home / "data")) == rows(shop)
    (home / "week2/b/1/41.png").unlink(missing_ok=True)
    icsr("shop", "--add", home / "week2")
    assert len(datasets.load("shop", home / "data").train) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["other", "--add", "week2"], "The data set 'other' is not prepared"),
        (["shop", "--add", "nowhere"], "--add nowhere is no folder"),
        (["shop", "--add", "week2", "--source", "crops", "--seed", "0"], "leave out --source, --seed"),
        (["shop", "--add", "week2", "--dry-run"], "not what is added: --source week2 --dry-run"),
        (["shop", "--add", "week2", "--test-share", "0.3"], "leave out --test-share"),
        (
            ["shop", "--add", "week2", "--csv", "new.csv", "--pattern", "{camera}.png"],
            "Give either --pattern",
        ),
        (["shop", "--add", "week2", "--verify"], "leave out --add"),
        (["shop", "--expansion", "3", "--verify"], "leave out --expansion"),
    ],
)
def test_what_does_not_fit_is_said(words: list[str], message: str, home: Path, shop: Dataset) -> None:
    write(home / "week2", "b/1/40.png")
    result = CliRunner().invoke(app, ["prepare", "folder", *words])
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.split())


def test_a_test_set_that_cannot_be_evaluated_is_refused(home: Path, shop: Dataset) -> None:
    write(home / "week2", "1.png", "2.png", seed=1)
    for lines, message in (
        ("1.png,b,gallery,7\n2.png,b,train,", "both a query and a gallery split"),
        ("1.png,b,query,\n2.png,c,gallery,7", "1 images of the query split have no id"),
    ):
        (home / "new.csv").write_text(f"path,camera,split,id\n{lines}\n")
        said = icsr("shop", "--add", "week2", "--csv", "new.csv", code=1).stderr
        assert message in " ".join(said.split())
    assert rows(datasets.load("shop", home / "data")) == rows(shop)


def test_whole_blocks_are_taken_over_and_not_decoded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK", 4)
    write(home / "crops", *(f"a/{n:02}.png" for n in range(10)))
    icsr("shop", "--source", "crops", "--pattern", "{camera}/{name}.png", "--size", "12x6")
    decoded = []
    work = store.work

    def watched(jobs: list[store.Job], workers: int) -> object:
        decoded.extend(path for job in jobs for path in job.paths)
        return work(jobs, workers)

    monkeypatch.setattr(store, "work", watched)
    write(home / "week2", "a/x.png", "a/y.png", "a/z.png", seed=1)
    # A damaged block is not taken over.
    whole = home / "data/shop/pixels/train-12x6.npy"
    damaged = np.load(whole, mmap_mode="r+")
    damaged[5] = 0
    damaged.flush()
    icsr("shop", "--add", "week2")
    assert {Path(path).name for path in decoded} == {
        *(f"{n:02}.png" for n in range(4, 10)),
        "x.png",
        "y.png",
        "z.png",
    }
    found = datasets.load("shop", home / "data")
    for record, image in zip(found.train.records, np.load(whole), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(found.root / record.path)), image)
    assert not store.verify_pixels(home / "data/shop/pixels")
