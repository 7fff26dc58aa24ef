"""Search: order, cameras, the cache of a gallery, and what cannot be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from icsr_cli import datasets
from icsr_cli.distances import CameraStatistics, normalise_cameras
from icsr_cli.errors import DatasetError, UsageError
from icsr_cli.features import extract
from icsr_cli.images.decode import decode_resized
from icsr_cli.models import build, save_weights
from icsr_cli.progress import Progress
from icsr_cli.recipes import gallery as gallery_module
from icsr_cli.recipes.debiasing import debiased
from icsr_cli.recipes.gallery import FileEmbedder, cache_folder, images_of, open_embedder, open_gallery
from icsr_cli.recipes.search import search
from icsr_cli.recipes.steps import Engine

SIZE = (32, 16)


class Heard(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> FileEmbedder:
    network = build("resnet_small", seed=1)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_weights(network, path)
    return FileEmbedder(network.eval(), path, SIZE, Engine(torch.device("cpu"), "fp32"))


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Nine noisy images `<camera>_<name>.png`, some in a folder below, and a file that is no image's."""
    folder = tmp_path / "crops"
    (folder / "below").mkdir(parents=True)
    random = np.random.default_rng(3)
    for number in range(9):
        pixels = random.integers(0, 256, (40 + number, 20, 3), dtype=np.uint8)
        place = folder / "below" if number > 6 else folder
        Image.fromarray(pixels).save(place / f"{number % 3}_{number}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def slow_features(folder: Path, paths: list[str], embedder: FileEmbedder) -> np.ndarray:
    """One image at a time."""
    rows = [
        extract(embedder.network, decode_resized(folder / path, *SIZE)[None])[0].numpy() for path in paths
    ]
    return np.stack(rows)


def test_order_and_distances_are_those_of_the_obvious_way(crops: Path, embedder: FileEmbedder) -> None:
    query = crops / "0_3.png"
    found = search([query], crops, embedder, Progress(), top=100)
    paths = sorted(path.relative_to(crops).as_posix() for path in crops.rglob("*.png"))
    assert found.images == 9
    answers = found.queries[0]
    assert answers.compared == 8  # the query's own file is no answer
    features = slow_features(crops, paths, embedder)
    distances = np.linalg.norm(features - features[paths.index("0_3.png")], axis=1)
    expected = sorted((distance, path) for distance, path in zip(distances, paths, strict=True))[1:]
    assert [match.path for match in answers.matches] == [path for _, path in expected]
    np.testing.assert_allclose(
        [match.distance for match in answers.matches], [distance for distance, _ in expected], atol=1e-5
    )
    assert [match.rank for match in answers.matches] == list(range(1, 9))
    farthest = answers.matches[2].distance
    near = search([query], crops, embedder, Progress(), farthest=farthest).queries[0]
    assert near == replace(answers, matches=answers.matches[:3])


def test_top_limits_and_many_queries_are_each_served(
    crops: Path, embedder: FileEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import icsr_cli.recipes.search as module

    queries = sorted(crops.rglob("*.png"))
    every = search(queries, crops, embedder, Progress(), top=100)
    whole = search(queries, crops, embedder, Progress(), top=3)
    monkeypatch.setattr(module, "_BLOCK", 2)
    monkeypatch.setattr(gallery_module, "_CHUNK", 2)
    in_parts = search(queries, crops, embedder, Progress(), top=3, keep=False)
    assert [len(answers.matches) for answers in whole.queries] == [3] * 9
    names = [[match.path for match in answers.matches] for answers in whole.queries]
    assert names == [[match.path for match in answers.matches[:3]] for answers in every.queries]
    assert names == [[match.path for match in answers.matches] for answers in in_parts.queries]
    alone = search(queries[4:5], crops, embedder, Progress(), top=3)
    assert [match.path for match in alone.queries[0].matches] == names[4]


def test_a_query_more_does_not_walk_through_the_gallery(
    crops: Path, embedder: FileEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python that takes longer than to compare all features."""
    import icsr_cli.recipes.search as module

    looks: list[str] = []

    class Paths(tuple[str, ...]):
        def __iter__(self) -> Iterator[str]:
            looks.append("path")
            return super().__iter__()

    class Looked(module.Names):
        def __getattribute__(self, name: str) -> Any:
            looks.append(name)
            return super().__getattribute__(name)

    gallery = open_gallery(crops, embedder, Progress())
    found = replace(gallery, paths=Paths(gallery.paths))
    monkeypatch.setattr(module, "open_gallery", lambda *_, **__: found)
    monkeypatch.setattr(module, "Names", Looked)

    def count(queries: list[Path]) -> Counter[str]:
        looks.clear()
        search(queries, crops, embedder, Progress(), top=1, pattern="{camera}_*", across_cameras=True)
        return Counter(looks)

    queries = sorted(crops.glob("*.png"))[:2]
    one, two = count(queries[:1]), count(queries)
    assert two["path"] == one["path"]
    assert two["camera"] - one["camera"] < len(gallery.paths)


def test_images_of_a_folder_are_named_by_the_pattern(tmp_path: Path) -> None:
    for path in ("a/10/7.jpg", "a/2/5.jpg", "b/2/6.jpg", "stray.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    heard = Heard()
    found, cameras = images_of(str(tmp_path), None, "{camera}/{track}/{frame}.jpg", tmp_path, heard)
    assert found.paths == ("a/10/7.jpg", "a/2/5.jpg", "b/2/6.jpg")
    assert (found.cameras.tolist(), cameras, found.has_identities) == ([0, 0, 1], ("a", "b"), False)
    assert (found.tracks.tolist(), found.frames.tolist()) == ([1, 0, 2], [7, 5, 6])
    assert heard.warnings == ["1 images do not fit --pattern and are left out, such as stray.jpg"]
    found, _ = images_of(str(tmp_path), None, "{camera}/{id}/*", tmp_path, heard)
    assert found.identities.tolist() == [10, 2, 2]
    found, cameras = images_of(str(tmp_path), None, "*/{camera}/*", tmp_path, heard)
    assert (found.cameras.tolist(), cameras) == ([1, 0, 0], ("2", "10"))  # as a data set numbers them
    found, cameras = images_of(str(tmp_path), None, None, tmp_path, heard)
    assert (len(found), cameras) == (4, ())


def test_a_folder_that_hides_a_data_set_is_told_of(
    crops: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    monkeypatch.chdir(crops.parent)
    (crops.parent / "tiny").symlink_to(crops)
    images_of("tiny", None, None, tiny_root, heard)
    assert heard.notes == ["tiny is the folder here; --split train means the data set of that name."]
    found, cameras = images_of("tiny", "gallery", None, tiny_root, heard)
    assert found.paths == datasets.load("tiny", tiny_root).splits["gallery"].paths
    assert (len(cameras), len(heard.notes)) == (len(datasets.load("tiny", tiny_root).camera_names), 1)


@pytest.mark.parametrize(
    ("images", "split", "pattern", "said"),
    [
        ("{folder}", "gallery", None, "--split is for a prepared data set"),
        ("{folder}", "train", "{camera}/*", "--split is for a prepared data set"),
        ("tiny", None, "{camera}/*", "--pattern is for a folder"),
        ("tiny", "validation", None, "has no validation images"),
        ("{folder}", None, "{camera}.jpg", r"No path in .* fits --pattern"),
    ],
)
def test_an_option_of_the_other_kind_of_images_is_refused(
    images: str, split: str | None, pattern: str | None, said: str, crops: Path, tiny_root: Path
) -> None:
    assert images_of("tiny", None, None, tiny_root, Progress())[0].paths[0].startswith("bounding_box_train/")
    with pytest.raises(UsageError, match=said):
        images_of(images.format(folder=crops), split, pattern, tiny_root, Progress())


def test_across_cameras_leaves_out_the_own_camera(
    crops: Path, embedder: FileEmbedder, tmp_path: Path
) -> None:
    outside = tmp_path / "1_someone.png"
    Image.new("RGB", (20, 40), "red").save(outside)
    Image.new("RGB", (20, 40), "red").save(crops / "nocamera.png")
    pattern = "**/{camera}_{name}.png"
    everything = search([outside], crops, embedder, Progress(), pattern=pattern, top=100)
    heard = Heard()
    across = search([outside], crops, embedder, heard, pattern=pattern, top=100, across_cameras=True)
    assert heard.warnings == ["1 images do not fit --pattern and are left out, such as nocamera.png"]
    assert everything.queries[0].matches[0].path == "nocamera.png"  # the same picture
    assert everything.queries[0].matches[0].distance < 1e-3
    assert everything.no_camera == across.no_camera == 1
    assert everything.queries[0].camera == "1"
    kept = [match for match in everything.queries[0].matches if match.camera not in (None, "1")]
    assert [match.path for match in across.queries[0].matches] == [match.path for match in kept]
    assert across.queries[0].compared == 6


def test_debias_of_one_image_is_refused(tmp_path: Path, crops: Path, embedder: FileEmbedder) -> None:
    first = min(crops.rglob("*.png"))
    alone = tmp_path / "alone"
    alone.mkdir()
    Image.open(first).save(alone / "c1.png")
    other = max(crops.rglob("*.png"))
    for how in ("centre", "full"):
        with pytest.raises(UsageError, match=f"--debias {how} leaves nothing of 1 image"):
            search([other], alone, embedder, Progress(), pattern="{camera}.png", debias=how)
        with pytest.raises(UsageError, match=f"--debias {how} leaves nothing of 3 images"):
            debiased(np.ones((3, 4), np.float32), np.array([0, 1, 1]), "ab", how, Progress())


def test_debias_ranks_by_features_without_each_camera_s_mean(crops: Path, embedder: FileEmbedder) -> None:
    paths = sorted(path.relative_to(crops).as_posix() for path in crops.rglob("*.png"))
    cameras = np.array([int(path.rpartition("/")[2][0]) for path in paths])
    features = normalise_cameras(slow_features(crops, paths, embedder), cameras, "full")
    query = paths[0]
    found = search(
        [crops / query],
        crops,
        embedder,
        Progress(),
        pattern="**/{camera}_{name}.png",
        debias="full",
        top=100,
    ).queries[0]
    distances = np.linalg.norm(features - features[0], axis=1)
    right = [paths[row] for row in np.argsort(distances, kind="stable") if paths[row] != query]
    assert [match.path for match in found.matches] == right
    np.testing.assert_allclose([match.distance for match in found.matches], np.sort(distances)[1:], atol=1e-4)
    with pytest.raises(UsageError, match="--debias needs to know the camera"):
        search([crops / query], crops, embedder, Progress(), debias="full")
    with pytest.raises(UsageError, match="no image of the gallery fits --pattern"):
        search([crops / query], crops, embedder, Progress(), pattern="{camera}.jpg", debias="full")
    # Those of no camera are not among those that are measured, and are held against all.
    Image.new("RGB", (20, 40), "red").save(crops / "nocamera.png")
    stranger = crops.parent / "stranger.png"
    Image.new("RGB", (20, 40), "blue").save(stranger)
    statistics = CameraStatistics.of(slow_features(crops, paths, embedder), cameras)
    every = [*paths, "nocamera.png"]
    features = statistics.apply(slow_features(crops, every, embedder), np.append(cameras, 3))
    own = statistics.apply(slow_features(crops.parent, [stranger.name], embedder), np.array([3]))
    pattern = "**/{camera}_{name}.png"
    [found] = search([stranger], crops, embedder, Progress(), pattern=pattern, debias="full", top=100).queries
    distances = np.linalg.norm(features - own, axis=1)
    assert [match.path for match in found.matches] == [every[row] for row in np.argsort(distances)]
    np.testing.assert_allclose([match.distance for match in found.matches], np.sort(distances), atol=1e-4)


def test_identities_are_read_where_the_pattern_has_them(crops: Path, embedder: FileEmbedder) -> None:
    (crops / "0_3.png").rename(crops / "0_-1.png")
    found = search([crops / "1_4.png"], crops, embedder, Progress(), pattern="**/{camera}_{id}.png")
    assert found.queries[0].identity == "4"
    identities = {match.path: match.identity for match in found.queries[0].matches}
    assert identities["2_5.png"] == "5"
    assert identities["below/1_7.png"] == "7"
    assert identities["0_-1.png"] is None


def test_only_new_and_changed_images_are_embedded_again(crops: Path, embedder: FileEmbedder) -> None:
    first = open_gallery(crops, embedder, Progress())
    assert first.reused == 0
    assert first.cache is not None
    assert first.cache.parent == crops / ".icsr"
    again = open_gallery(crops, embedder, Progress())
    assert again.reused == 9
    np.testing.assert_array_equal(first.features, again.features)
    Image.new("RGB", (20, 40), "blue").save(crops / "0_0.png")
    Image.new("RGB", (20, 40), "green").save(crops / "2_new.png")
    (crops / "1_1.png").unlink()
    changed = open_gallery(crops, embedder, Progress())
    assert changed.reused == 7
    assert changed.paths == tuple(sorted(changed.paths))
    expected = slow_features(crops, list(changed.paths), embedder)
    np.testing.assert_allclose(changed.features, expected, atol=1e-5)
    assert open_gallery(crops, embedder, Progress()).reused == 9
    # Of a picture that is deleted, nothing stays.
    assert b"2_new.png" in first.cache.read_bytes()
    (crops / "2_new.png").unlink()
    assert open_gallery(crops, embedder, Progress()).reused == 8
    assert b"2_new.png" not in first.cache.read_bytes()


def test_other_weights_or_sizes_have_a_cache_of_their_own(
    crops: Path, embedder: FileEmbedder, tmp_path: Path
) -> None:
    open_gallery(crops, embedder, Progress())
    other = build("resnet_small", seed=2)
    save_weights(other, tmp_path / "other.safetensors")
    engine = embedder.engine
    for changed in (
        FileEmbedder(other.eval(), tmp_path / "other.safetensors", SIZE, engine),
        FileEmbedder(embedder.network, embedder.weights, (48, 24), engine),
    ):
        assert open_gallery(crops, changed, Progress()).reused == 0
    assert len(list((crops / ".icsr").iterdir())) == 3
    assert open_gallery(crops, embedder, Progress()).reused == 9


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense", b"a byte"])
def test_a_damaged_cache_is_replaced(crops: Path, embedder: FileEmbedder, damage: bytes) -> None:
    cache = open_gallery(crops, embedder, Progress()).cache
    assert cache is not None
    whole = cache.read_bytes()
    other = whole[:-1] + bytes([whole[-1] ^ 1])
    cache.write_bytes(other if damage == b"a byte" else damage or whole[: len(whole) // 2])
    assert open_gallery(crops, embedder, Progress()).reused == 0
    assert open_gallery(crops, embedder, Progress()).reused == 9


@pytest.mark.parametrize(
    ("asked", "size", "plain"),
    [
        ((None, None), (32, 16), (256, 128)),
        ((48, None), (48, 16), (48, 128)),
        ((None, 24), (32, 24), (256, 24)),
        ((48, 24), (48, 24), None),
    ],
)
def test_images_have_the_size_of_the_weights_or_another(
    tmp_path: Path, asked: tuple[int | None, int | None], size: tuple[int, int], plain: tuple[int, int] | None
) -> None:
    """A file that does not say it has the usual size, with a warning, unless both are given."""
    height, width = asked
    for known, right, warned in (
        ({"height": "32", "width": "16"}, size, False),
        ({}, plain or size, plain is not None),
    ):
        path, heard = tmp_path / "net.safetensors", Heard()
        save_weights(build("resnet_small", seed=1), path, known)
        found = open_embedder(path, tmp_path, "cpu", "fp32", heard, height=height, width=width)
        assert (found.size, bool(heard.warnings)) == (right, warned)


def test_without_a_cache_nothing_is_written(crops: Path, embedder: FileEmbedder) -> None:
    assert open_gallery(crops, embedder, Progress(), keep=False).cache is None
    assert not (crops / ".icsr").exists()


def test_a_cache_goes_to_the_user_where_the_gallery_is_read_only(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder(crops) == crops / ".icsr"
    monkeypatch.setattr(os, "access", lambda *_: False)
    elsewhere = cache_folder(crops)
    assert elsewhere.is_relative_to(tmp_path / "cache" / "icsr")
    assert elsewhere != cache_folder(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder(crops) == tmp_path / "home" / ".cache" / "icsr" / "galleries" / elsewhere.name


def test_a_cache_that_cannot_be_written_is_warned_of(crops: Path, embedder: FileEmbedder) -> None:
    (crops / ".icsr").write_text("a file where the folder should be")
    heard = Heard()
    assert len(open_gallery(crops, embedder, heard).paths) == 9
    assert "cannot be kept" in heard.warnings[0]


def test_unreadable_images_are_left_out_and_named(crops: Path, embedder: FileEmbedder) -> None:
    (crops / "1_1.png").write_bytes(b"not a picture")
    (crops / "2_2.png").write_bytes(b"")
    for _ in range(2):  # the second time with a cache
        found = search([crops / "0_3.png"], crops, embedder, Progress(), top=100)
        assert {item.path: item.reason for item in found.unreadable} == {
            "1_1.png": "not an image",
            "2_2.png": "empty file",
        }
        assert found.images == 7
        assert not {"1_1.png", "2_2.png"} & {match.path for match in found.queries[0].matches}


BAD: Mapping[str, tuple[type[Exception], str]] = {
    "no gallery": (DatasetError, "does not exist"),
    "a file": (DatasetError, "is a file"),
    "empty": (DatasetError, "There is no image"),
    "no picture": (DatasetError, "None of the 1 images"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_gallery_that_is_none_is_said(
    case: str, crops: Path, embedder: FileEmbedder, tmp_path: Path
) -> None:
    folder = tmp_path / "gallery"
    if case == "a file":
        folder.write_text("x")
    elif case != "no gallery":
        folder.mkdir()
    if case == "no picture":
        (folder / "a.jpg").write_text("x")
    with pytest.raises(BAD[case][0], match=BAD[case][1]):
        search([crops / "0_3.png"], folder, embedder, Progress())


def test_queries_that_cannot_be_used_are_said(crops: Path, embedder: FileEmbedder) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.png cannot be used.*notes\.txt.*not an image"):
        search([crops / "nowhere.png", crops / "notes.txt"], crops, embedder, Progress())
    assert not (crops / ".icsr").exists()  # said before the gallery is embedded
    with pytest.raises(UsageError, match="--pattern"):
        search([crops / "0_3.png"], crops, embedder, Progress(), across_cameras=True)
    with pytest.raises(UsageError, match="does not fit the pattern"):
        search(
            [crops / "0_3.png"],
            crops,
            embedder,
            Progress(),
            pattern="c{camera}.png",
            across_cameras=True,
        )


def test_nothing_left_to_compare(crops: Path, embedder: FileEmbedder, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (crops / "0_3.png").rename(alone / "0_3.png")
    answers = search([alone / "0_3.png"], alone, embedder, Progress()).queries[0]
    assert (answers.compared, answers.matches) == (0, ())
