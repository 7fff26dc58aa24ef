"""MSMT17: fifteen cameras of a campus, four days, indoors and outdoors."""

import re
from dataclasses import dataclass
from pathlib import Path

from icsr_cli.datasets.layout import (
    MOST_DIGITS,
    PUBLISHED,
    SPLITS,
    Benchmark,
    Count,
    FolderLayout,
    Reading,
    Unread,
    refuse_repeated,
    such_as,
)
from icsr_cli.errors import DatasetError
from icsr_cli.files import read_bytes
from icsr_cli.types import ImageRecord

_CAMERAS = {number: number - 1 for number in range(1, 16)}
_LISTS = {
    "train": ("list_train.txt", "list_val.txt"),
    "query": ("list_query.txt",),
    "gallery": ("list_gallery.txt",),
}
_NAME = re.compile(r"\d+_\d+_(?P<camera>\d+)_.*")


@dataclass(frozen=True)
class ListLayout:
    """The authors' own layout: two folders of images, four lists of ``path identity``.

    Identities are numbered from 0 in the training lists and again from 0 in the test lists.
    """

    train: str
    test: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Both folders and the four lists."""
        return (self.train, self.test, *(name for names in _LISTS.values() for name in names))

    def describe(self) -> str:
        """Folders, lists and an example."""
        return (
            f"  {self.train}/  {self.test}/  {', '.join(self.parts[2:])}\n"
            "  with lines such as '0000/0000_000_01_0303morning_0008_0.jpg 0'"
        )

    def read(self, root: Path) -> Reading:
        """Read the lists; training is train and val together, as everybody counts it."""
        unread: list[Unread] = []
        splits = {}
        for split in SPLITS:
            folder = self.train if split == "train" else self.test
            rows: list[ImageRecord] = []
            for name in _LISTS[split]:
                rows += _read_list(root / name, folder, split, unread)
            if not rows:
                wrong = such_as(item for item in unread if item.split == split)
                raise DatasetError(
                    f"No line of {', '.join(_LISTS[split])} in {root} can be read{wrong}. "
                    f"Expected:\n{self.describe()}"
                )
            refuse_repeated(
                (row.path for row in rows),
                "image",
                f"listed twice in {', '.join(_LISTS[split])}",
                "Take the lists as the authors published them.",
            )
            splits[split] = tuple(rows)
        return Reading(root, splits, tuple(f"c{number}" for number in _CAMERAS), {}, tuple(unread))


def _read_list(path: Path, folder: str, split: str, unread: list[Unread]) -> list[ImageRecord]:
    rows = []
    text = read_bytes(path).decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        name, _, identity = line.strip().rpartition(" ")
        match = _NAME.fullmatch(name.rpartition("/")[2])
        where = f"{path.name}:{number}: {line.strip()}"
        if match is None or not identity.isdecimal() or len(identity) > MOST_DIGITS:
            unread.append(Unread(split, where, "the line does not fit"))
        elif int(match["camera"]) not in _CAMERAS:
            unread.append(Unread(split, where, f"there is no camera {int(match['camera'])}"))
        elif "\0" in name:
            unread.append(Unread(split, where, "no file has a NUL in its path"))
        elif name.startswith("/") or ".." in name.split("/"):
            unread.append(Unread(split, where, "the path leads out of the folder"))
        else:
            rows.append(ImageRecord(f"{folder}/{name}", _CAMERAS[int(match["camera"])], int(identity)))
    return rows


BENCHMARK = Benchmark(
    name="msmt17",
    title="MSMT17",
    licence="Research only, under a signed release agreement.",
    citation=(
        "L. Wei, S. Zhang, W. Gao, Q. Tian: Person Transfer GAN to Bridge Domain Gap for Person "
        "Re-identification. CVPR 2018."
    ),
    ask="The authors, with a signed agreement: https://www.pkuvmc.com/dataset.html",
    place="MSMT17_V1",
    counts={"train": Count(32_621, 1_041), "query": Count(11_659, 3_060), "gallery": Count(82_161, 3_060)},
    cameras=15,
    layouts=(
        ListLayout("train", "test"),
        ListLayout("mask_train_v2", "mask_test_v2"),
        FolderLayout(
            {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
            r"(?P<identity>-1|\d+)_c(?P<camera>\d+)_.*",
            ("0000_c1_0000.jpg",),
            cameras=_CAMERAS,
        ),
    ),
    settings={
        **PUBLISHED,
        "global": {"iters": 400, "bn_group": 16},
        "methods": {
            **PUBLISHED["methods"],
            "cluster-contrast-vit-s": {"global": {"clusterer": {"eps": 0.7}}},
            "cluster-contrast-clip": {"global": {"clusterer": {"eps": 0.7}}},
        },
    },
)
