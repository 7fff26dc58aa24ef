"""Folders, names, counts, and what must hold for the pixels."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icsr_cli.errors import DatasetError, InputError
from icsr_cli.progress import Progress, Task
from icsr_cli.synthesis import World, draw, render, rendering

#: Written out, so that another tuning of the presets changes nothing here.
EVERY_DIAL = {
    "train_identities": 8, "test_identities": 0, "cameras": 5, "cameras_per_person": (2, 5), "images": (2, 6),
    "distractors": 0, "junk": 0, "height": 64, "width": 32, "seed": 0, "background": 1.0, "camera_shift": 1.0,
    "blur": 1.0, "noise": 1.0, "resolution": 1.0, "crop_jitter": 1.0, "occlusion": 0.05, "view_spread": 0.25,
    "garment_similarity": 0.95, "second_pass": 0.0,
}  # fmt: skip
NAME = re.compile(r"^(-1|\d{4})_c(\d)s(\d)_(\d{6})_(\d\d)\.jpg$")
SMALL = World(
    train_identities=6, test_identities=5, cameras=3, cameras_per_person=(2, 3), distractors=9, junk=7
)
#: More than one batch, so that there is something to share out.
BATCHES = replace(SMALL, train_identities=30, height=32, width=16)


def parts(names):
    """Give (folder, identity, camera, sequence) of every name."""
    found = []
    for name in names:
        folder, file = name.split("/")
        match = NAME.match(file)
        assert match, name
        found.append((folder, int(match[1]), int(match[2]), int(match[3])))
    return found


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))


def test_layout_names_and_counts(tmp_path):
    root = tmp_path / "data" / "synthetic"
    render(root, SMALL)
    assert sorted(path.name for path in root.iterdir()) == [
        "bounding_box_test", "bounding_box_train", "query", "world.json",
    ]  # fmt: skip
    assert World(**json.loads((root / "world.json").read_text())["world"]) == SMALL
    names = files_of(root)
    assert sorted(draw(SMALL)[0]) == names
    folders = Counter(folder for folder, *_ in parts(names))
    people = {folder: {pid for f, pid, *_ in parts(names) if f == folder} for folder in folders}
    assert len(people["bounding_box_train"]) == 6
    assert len(people["query"]) == 5
    assert people["bounding_box_test"] == people["query"] | {0, -1}
    assert not people["query"] & people["bounding_box_train"]
    gallery = Counter(pid for folder, pid, *_ in parts(names) if folder == "bounding_box_test")
    assert (gallery[0], gallery[-1]) == (9, 7)
    assert {camera for _, _, camera, _ in parts(names)} == {1, 2, 3}
    with Image.open(root / names[0]) as image:
        assert (image.size, image.mode, image.format) == ((32, 64), "RGB", "JPEG")
    assert list((tmp_path / "data").iterdir()) == [root]


def test_every_query_has_a_match_in_another_camera():
    found = parts(draw(SMALL)[0])
    gallery = {(pid, camera) for folder, pid, camera, _ in found if folder == "bounding_box_test"}
    queries = [(pid, camera) for folder, pid, camera, _ in found if folder == "query"]
    assert len(queries) == len(set(queries))
    for pid, camera in queries:
        assert any(p == pid and c != camera for p, c in gallery)


def test_exact_totals():
    world = replace(SMALL, train_images=40, test_images=51, queries=13)
    folders = Counter(folder for folder, pid, *_ in parts(draw(world)[0]) if pid > 0)
    assert folders == {"bounding_box_train": 40, "query": 13, "bounding_box_test": 38}


@pytest.mark.parametrize(("dial", "value"), [("train_images", 3), ("test_images", 1000), ("queries", 16)])
def test_totals_that_cannot_be_met(dial, value, tmp_path):
    with pytest.raises(InputError, match=f"{dial} is {value}"):
        render(tmp_path / "out", replace(SMALL, **{dial: value}))
    assert not list(tmp_path.iterdir())


def test_market_sized_plan_has_markets_counts():
    from icsr_cli.synthesis.passes import plan

    found = parts(plan(World.preset("market1501")).files)
    train = [pid for folder, pid, *_ in found if folder == "bounding_box_train"]
    assert (len(train), len(set(train))) == (12_936, 751)
    assert sum(folder == "query" for folder, *_ in found) == 3_368
    gallery = [pid for folder, pid, *_ in found if folder == "bounding_box_test"]
    assert sum(pid >= 0 for pid in gallery) == 15_913
    assert sum(pid == -1 for pid in gallery) == 3_819
    assert len(set(gallery) - {0, -1}) == 750


def test_one_and_two_workers_write_the_same(tmp_path):
    render(tmp_path / "one", BATCHES, workers=1)
    render(tmp_path / "two", BATCHES, workers=2)
    names = files_of(tmp_path / "one")
    assert names == files_of(tmp_path / "two")
    assert len(names) > rendering.batch_size(BATCHES)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_files_show_what_draw_gives(tmp_path):
    render(tmp_path / "out", SMALL)
    names, pixels = draw(SMALL)
    for name, picture in zip(names[::7], pixels[::7], strict=True):
        with Image.open(tmp_path / "out" / name) as image:
            difference = np.abs(np.asarray(image).astype(int) - picture)
        assert difference.mean() < 4


def test_seed_decides_people_and_nothing_else_does():
    names, pixels = draw(SMALL)
    again = draw(SMALL)
    assert again[0] == names
    np.testing.assert_array_equal(again[1], pixels)
    other_names, other_pixels = draw(replace(SMALL, seed=1))
    assert other_names != names
    assert other_pixels.shape != pixels.shape or (other_pixels != pixels).mean() > 0.5


def test_extra_files_do_not_change_the_people():
    names, pixels = draw(replace(SMALL, distractors=0, junk=0))
    more_names, more_pixels = draw(replace(SMALL, distractors=3, junk=2))
    assert more_names[: len(names)] == names
    whole = len(names) // rendering.batch_size(SMALL) * rendering.batch_size(SMALL)
    assert whole > 0
    np.testing.assert_array_equal(more_pixels[:whole], pixels[:whole])


def test_the_picture_is_the_one_it_was():
    """A change of the drawing shows here: then raise PIXEL_VERSION and put in the new figures."""
    _, pixels = draw(World(**EVERY_DIAL))
    assert len(pixels) == 103
    np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), (119.89, 111.63, 112.41), atol=0.02)
    middle = pixels[:, 8:56, 12:20].astype(float)
    np.testing.assert_allclose(middle.std(axis=(0, 1, 2)), (40.47, 40.45, 40.09), atol=0.02)


class StopsAfter(Progress):
    """Progress that is interrupted after the first batch."""

    def task(self, title, total, unit="it"):
        class Stopping(Task):
            def advance(self, count=1):
                raise KeyboardInterrupt

        return Stopping()


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_render_leaves_nothing(tmp_path, workers):
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path / "out", BATCHES, workers=workers, progress=StopsAfter())
    assert not list(tmp_path.iterdir())


def test_failing_disk_is_one_message(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rendering, "_write_batch", full)
    with pytest.raises(DatasetError, match="No space left"):
        render(tmp_path / "out", SMALL, workers=1)
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_image(tmp_path):
    seen = []

    class Counts(Progress):
        def task(self, title, total, unit="it"):
            class Counting(Task):
                def advance(self, count=1):
                    seen.append((count, total))

            return Counting()

    render(tmp_path / "out", SMALL, progress=Counts())
    assert sum(count for count, _ in seen) == len(files_of(tmp_path / "out")) == seen[0][1]


def test_what_is_there_stays(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    render(target, SMALL)  # an empty folder is fine
    before = (target / "world.json").read_text()
    with pytest.raises(DatasetError, match="already"):
        render(target, replace(SMALL, seed=5))
    assert (target / "world.json").read_text() == before
    assert list(tmp_path.iterdir()) == [target]


def test_never_replaces_other_data(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(DatasetError, match="holds something already"):
        render(tmp_path, SMALL)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"mine"


def test_bad_workers(tmp_path):
    with pytest.raises(InputError, match="workers is 0"):
        render(tmp_path / "out", SMALL, workers=0)
