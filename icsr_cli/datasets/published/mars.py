"""MARS: Market-1501's cameras as video, in tracks that a detector and a tracker made."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icsr_cli.datasets.layout import Benchmark, Count, Reading, Unread
from icsr_cli.errors import DatasetError, reason
from icsr_cli.files import read_bytes, regular
from icsr_cli.types import BoolArray, ImageRecord

#: Person, camera, track of this person, image of this track: the last says nothing of the camera's time.
_NAME = re.compile(r"(?P<track>(?P<person>\d{4}|00-1)C(?P<camera>[1-6])T\d+)F\d+\.jpg")
_JUNK = "00-1"
_NAMES = {"train": "info/train_name.txt", "test": "info/test_name.txt"}
_TRACKS, _QUERIES = "info/tracks_test_info.mat", "info/query_IDX.mat"


@dataclass(frozen=True)
class VideoLayout:
    """Two folders of images, a folder per person, and the lists of the authors' evaluation code."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Both folders and the lists."""
        return ("bbox_train", "bbox_test", *_NAMES.values(), _TRACKS, _QUERIES)

    def describe(self) -> str:
        """Folders, an example, and where the lists come from."""
        return (
            f"  {'  '.join(self.parts)}\n  with images such as bbox_train/0001/0001C1T0001F001.jpg\n"
            "  info/ is that of https://github.com/liangzheng06/MARS-evaluation"
        )

    def read(self, root: Path) -> Reading:
        """Read the names; which tracks are queries say the two tables."""
        unread: list[Unread] = []
        tracks: dict[str, int] = {}
        names = {
            part: read_bytes(root / path).decode("utf-8", "replace").split() for part, path in _NAMES.items()
        }
        asked = _queries(root, len(names["test"]))
        test = np.array(names["test"])
        of_split = {
            "train": ("bbox_train", names["train"]),
            "query": ("bbox_test", test[asked].tolist()),
            "gallery": ("bbox_test", test[~asked].tolist()),
        }
        splits, ignored = {}, {}
        for split, (folder, found) in of_split.items():
            splits[split] = tuple(_records(split, folder, found, tracks, unread))
            ignored[split] = sum(name.startswith(_JUNK) for name in found)
            if not splits[split]:
                raise DatasetError(f"No name of the {split} split fits. Expected:\n{self.describe()}")
        return Reading(root, splits, tuple(f"c{number}" for number in range(1, 7)), ignored, tuple(unread))


def _records(
    split: str, folder: str, names: Iterable[str], tracks: dict[str, int], unread: list[Unread]
) -> Iterable[ImageRecord]:
    """Give the records, junk left out; a track has its number by the order of appearance."""
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            unread.append(Unread(split, name, "the name does not fit"))
        elif match["person"] != _JUNK:
            track = tracks.setdefault(f"{folder}/{match['track']}", len(tracks))
            path = f"{folder}/{match['person']}/{name}"
            yield ImageRecord(path, int(match["camera"]) - 1, int(match["person"]), track)


def _queries(root: Path, images: int) -> BoolArray:
    """Say of each image of the test list whether its track is a query, (images,).

    The tables count from 1: a track has its first and its last image, a query its track.
    """
    try:
        from scipy.io import loadmat

        bounds = np.asarray(loadmat(regular(root / _TRACKS))["track_test_info"])[:, :2].astype(np.int64)
        asked = np.asarray(loadmat(regular(root / _QUERIES))["query_IDX"]).astype(np.int64).ravel()
        if len(asked) and asked.min() < 1:
            raise ValueError(f"the query {asked.min()}, and tracks count from 1")
        chosen = bounds[asked - 1]
        if len(chosen) and (chosen.min() < 1 or chosen.max() > images or (chosen[:, 0] > chosen[:, 1]).any()):
            raise ValueError(f"tracks of images that the list of {images:,} has not")
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise DatasetError(
            f"{root / _TRACKS} and {_QUERIES} cannot be read ({reason(error)}). Get the folder info again: "
            "https://github.com/liangzheng06/MARS-evaluation"
        ) from error
    edges = np.zeros(images + 1, dtype=np.int64)
    np.add.at(edges, chosen[:, 0] - 1, 1)
    np.add.at(edges, chosen[:, 1], -1)
    return np.cumsum(edges[:-1]) > 0


BENCHMARK = Benchmark(
    name="mars",
    title="MARS",
    licence="Research; ask the authors.",
    citation=(
        "L. Zheng, Z. Bie, Y. Sun, J. Wang, C. Su, S. Wang, Q. Tian: MARS: A Video Benchmark for Large-Scale "
        "Person Re-identification. ECCV 2016."
    ),
    ask="The authors; their lists: https://github.com/liangzheng06/MARS-evaluation",
    place="MARS",
    cameras=6,
    # bbox_test holds 681,089 images of 12,180 tracks, junk among them; how they part is not published.
    counts={
        "train": Count(509_914, 625, 8_298),
        "query": Count(None, None, 1_980),
        "gallery": Count(None, None, 9_330),
    },
    layouts=(VideoLayout(),),
    distractor=0,
)
