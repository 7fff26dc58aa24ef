"""Tiny trees in the true layouts and names of every published data set."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from icsr_cli.types import ImageRecord


def jpeg(seed: int = 0, height: int = 16, width: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


@dataclass(frozen=True)
class Tree:
    """A layout: ``files`` (path -> content, or None for an image) and the records it has to give."""

    files: Mapping[str, str | bytes | None]
    splits: Mapping[str, tuple[ImageRecord, ...]]
    ignored: Mapping[str, int]

    def write(self, root: Path) -> Path:
        for number, (path, text) in enumerate(self.files.items()):
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            content = text.encode() if isinstance(text, str) else text
            target.write_bytes(jpeg(number) if content is None else content)
        return root


def flat(folders: Mapping[str, str], names: Mapping[str, Mapping[str, tuple[int, ...] | None]]) -> Tree:
    """A tree of one folder per split; a name maps to (camera, identity, track, frame), or None."""
    files: dict[str, str | bytes | None] = {f"{folders['gallery']}/Thumbs.db": "x", "readme.txt": "x"}
    splits, ignored = {}, {}
    for split, folder in folders.items():
        files |= {f"{folder}/{name}": None for name in names[split]}
        kept = sorted((name, row) for name, row in names[split].items() if row is not None)
        splits[split] = tuple(ImageRecord(f"{folder}/{name}", *row) for name, row in kept)
        ignored[split] = len(names[split]) - len(kept)
    return Tree(files, splits, ignored)


BOXES = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

MARKET = flat(
    BOXES,
    {
        "train": {
            "0002_c1s1_000451_03.jpg": (0, 2, -1, 1_000_451),
            "0002_c6s2_000551_01.jpg": (5, 2, -1, 2_000_551),
            "0007_c3s3_077419_03.jpg": (2, 7, -1, 3_077_419),
        },
        "query": {"0001_c1s1_001051_00.jpg": (0, 1, -1, 1_001_051)},
        "gallery": {
            "0001_c2s1_001976_01.jpg": (1, 1, -1, 1_001_976),
            "-1_c3s2_000011_01.jpg": None,
            "-1_c1s1_000401_03.jpg": None,
            "0000_c5s1_000401_02.jpg": (4, 0, -1, 1_000_401),
        },
    },
)
DUKE = flat(
    BOXES,
    {
        "train": {"0001_c2_f0046182.jpg": (1, 1), "0005_c8_f0087567.jpg": (7, 5)},
        "query": {"0006_c1_f0060400.jpg": (0, 6)},
        "gallery": {"0006_c5_f0083412.jpg": (4, 6), "7053_c4_f0132144.jpg": (3, 7053)},
    },
)
PERSONX = flat(
    BOXES,
    {
        "train": {"0001_c3s1_1.jpg": (0, 1), "0001_c12s1_35.jpg": (5, 1), "0002_c8s1_7.jpg": (2, 2)},
        "query": {"0411_c4s1_2.jpg": (1, 411)},
        "gallery": {"0411_c10s1_2.jpg": (3, 411), "0411_c11s1_2.jpg": (4, 411)},
    },
)
VERI = flat(
    {"train": "image_train", "query": "image_query", "gallery": "image_test"},
    {
        "train": {"0001_c001_00016450_0.jpg": (0, 1), "0001_c020_00016460_0.jpg": (19, 1)},
        "query": {"0002_c002_00030600_0.jpg": (1, 2)},
        "gallery": {"0002_c003_00084280_0.jpg": (2, 2)},
    },
)
MSMT_REPACKED = flat(
    BOXES,
    {
        "train": {"0000_c1_0000.jpg": (0, 0), "0000_c15_0001.jpg": (14, 0)},
        "query": {"0000_c14_0002.jpg": (13, 0)},
        "gallery": {"0000_c4_0003.jpg": (3, 0)},
    },
)


def msmt_lists(train: str, test: str) -> Tree:
    rows = {
        "train": ["0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_000_15_0113noon_1085_0.jpg 1"],
        "val": ["0000/0000_004_02_0303afternoon_0052_1.jpg 0"],
        "query": ["0000/0000_001_14_0303morning_0037_0_ex.jpg 0"],
        "gallery": ["0000/0000_003_01_0303morning_0021_1.jpg 0", "0002/0002_003_07_0302noon_1031_1.jpg 2"],
    }
    files: dict[str, str | bytes | None] = {
        f"list_{name}.txt": "\n".join(lines) + "\n" for name, lines in rows.items()
    }
    records: dict[str, list[ImageRecord]] = {"train": [], "query": [], "gallery": []}
    for name, lines in rows.items():
        folder = train if name in ("train", "val") else test
        for line in lines:
            path, identity = line.split()
            files[f"{folder}/{path}"] = None
            camera = int(path.split("_")[2]) - 1
            split = "train" if name == "val" else name
            records[split].append(ImageRecord(f"{folder}/{path}", camera, int(identity)))
    return Tree(files, {name: tuple(found) for name, found in records.items()}, {})


def mat(**arrays: object) -> bytes:
    file = io.BytesIO()
    savemat(file, arrays)
    return file.getvalue()


def mars() -> Tree:
    """Two training tracks; in the test list junk, a query, a distractor and a match, in this order."""
    train = ["0001C1T0001F001.jpg", "0001C1T0001F002.jpg", "0003C6T0002F001.jpg"]
    test = ["00-1C1T0001F001.jpg", "0002C2T0001F001.jpg", "0002C2T0001F002.jpg"]
    test += ["0000C3T0001F001.jpg", "0002C5T0004F001.jpg"]
    files: dict[str, str | bytes | None] = {
        f"bbox_{part}/{name[:4]}/{name}": None
        for part, names in (("train", train), ("test", test))
        for name in names
    }
    files["info/train_name.txt"], files["info/test_name.txt"] = "\n".join(train), "\r\n".join(test)
    tracks = np.array([[1, 1, -1, 1], [2, 3, 2, 2], [4, 4, 0, 3], [5, 5, 2, 5]])
    files["info/tracks_test_info.mat"] = mat(track_test_info=tracks)
    files["info/query_IDX.mat"] = mat(query_IDX=np.array([[2]]))
    splits = {
        "train": [(train[0], 0, 1, 0), (train[1], 0, 1, 0), (train[2], 5, 3, 1)],
        "query": [(test[1], 1, 2, 2), (test[2], 1, 2, 2)],
        "gallery": [(test[3], 2, 0, 3), (test[4], 4, 2, 4)],
    }
    records = {
        split: tuple(
            ImageRecord(f"bbox_{'train' if split == 'train' else 'test'}/{name[:4]}/{name}", *row)
            for name, *row in rows
        )
        for split, rows in splits.items()
    }
    return Tree(files, records, {"gallery": 1})


#: Every published data set, with every layout it is found in.
TREES: dict[str, tuple[str, Tree]] = {
    "market1501": ("market1501", MARKET),
    "dukemtmcreid": ("dukemtmcreid", DUKE),
    "personx": ("personx", PERSONX),
    "veri": ("veri", VERI),
    "msmt17 repacked": ("msmt17", MSMT_REPACKED),
    "msmt17 v1": ("msmt17", msmt_lists("train", "test")),
    "msmt17 v2": ("msmt17", msmt_lists("mask_train_v2", "mask_test_v2")),
    "mars": ("mars", mars()),
}


def pack(folder: Path, archive: Path) -> Path:
    """Pack a folder under its own name, as downloads are."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for path in sorted(folder.rglob("*")):
                opened.write(path, path.relative_to(folder.parent).as_posix())
    else:
        with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as opened:
            opened.add(folder, folder.name)
    return archive


@pytest.fixture(scope="session")
def trees() -> dict[str, tuple[str, Tree]]:
    return TREES


@pytest.fixture(params=list(TREES), scope="session")
def published(request: pytest.FixtureRequest) -> tuple[str, Tree]:
    """Name and tree of one layout of one data set; all of them in turn."""
    return TREES[request.param]


@pytest.fixture(scope="session")
def packer() -> Callable[[Path, Path], Path]:
    return pack


@pytest.fixture(scope="session")
def image_bytes() -> Callable[..., bytes]:
    return jpeg
