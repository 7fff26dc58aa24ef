"""What a published data set is, and how a layout on disk becomes records. Opens no image."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from icsr_cli.datasets.scan import find_folder, image_files
from icsr_cli.errors import DatasetError, counted, some
from icsr_cli.types import NO_TRACK, UNKNOWN_IDENTITY, ImageRecord

SPLITS = ("train", "query", "gallery")
#: Longer numbers do not fit 64 bits.
MOST_DIGITS = 18
#: The authors' script asks for 1,200 clusters on every data set (arXiv 2304.12634); each of its four GPUs
#: normalised its 16 of 64 images.
PUBLISHED: Final[dict[str, Any]] = {
    "cam": {"bn_group": 16},
    "global": {"bn_group": 16},
    "methods": {"icsr": {"global": {"clusterer": {"method": "average-linkage", "n_clusters": 1200}}}},
}


@dataclass(frozen=True)
class Count:
    """Published figures of one split, None where none is; ``identities`` are people, without distractors."""

    images: int | None
    identities: int | None
    tracks: int | None = None


@dataclass(frozen=True)
class Unread:
    """A file that gave no record, and why."""

    split: str
    path: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """What a layout gave: records per split (POSIX paths relative to ``root``), cameras from 0.

    ``ignored`` counts the images per split that the data set itself says to leave out (junk).
    ``unread`` are image files whose names do not fit the layout. ``identities``: the names of identities by
    number, empty where the numbers are the names.
    """

    root: Path
    splits: Mapping[str, tuple[ImageRecord, ...]]
    camera_names: tuple[str, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[Unread, ...] = ()
    notes: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()


class Layout(Protocol):
    """One way a data set lies on disk."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What has to lie in the root: names of folders and files."""

    def describe(self) -> str:
        """Say, in a few lines, what was expected."""

    def read(self, root: Path) -> Reading:
        """Read the records. Raises DatasetError where nothing fits."""


@dataclass(frozen=True)
class Benchmark:
    """A published data set: where it comes from, what it should hold, how it lies on disk."""

    name: str
    title: str
    licence: str
    citation: str
    ask: str
    place: str
    """The folder of the published layout, below ``<data root>/<name>``."""
    counts: Mapping[str, Count]
    layouts: tuple[Layout, ...]
    cameras: int = 1
    """Cameras that took the training images."""
    height: int = 256
    width: int = 128
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a run that differ for it; below ``methods``, those that differ for a method."""
    distractor: int | None = None
    """The identity that stands for no person in particular, if there is one."""
    notice: str | None = None

    @property
    def run_settings(self) -> dict[str, Any]:
        """The settings of a run that differ for it, the size of its images among them."""
        return {"image": {"height": self.height, "width": self.width}, **self.settings}

    def locate(self, start: Path) -> tuple[Path, Layout]:
        """Find the root of the data set at, below or right above ``start``.

        Raises DatasetError that names the missing part where most of a layout is there.
        """
        for layout in self.layouts:
            root = find_folder(start, partial(_has, parts=layout.parts))
            if root is not None:
                return root, layout
        for layout in self.layouts:  # the user may have named one of the split folders itself
            if start.name in layout.parts and _has(start.parent, layout.parts):
                return start.parent, layout
        raise DatasetError(self._not_found(start))

    def read(self, start: Path) -> Reading:
        """Locate and read the data set. Raises DatasetError."""
        root, layout = self.locate(start)
        return layout.read(root)

    def expected(self) -> str:
        """Say what the data set looks like on disk, every layout."""
        return "\nor\n".join(layout.describe() for layout in self.layouts)

    def _not_found(self, start: Path) -> str:
        partly = [
            (root, [part for part in layout.parts if not (root / part).exists()])
            for layout in self.layouts
            if (root := find_folder(start, partial(_has, parts=layout.parts, enough=any)))
        ]
        if not partly:
            return f"No {self.title} at or below {start}. Expected:\n{self.expected()}"
        root, missing = min(partly, key=lambda found: len(found[1]))
        verb = "is" if len(missing) == 1 else "are"
        return (
            f"{self.title} in {root} is incomplete: {', '.join(missing)} {verb} missing. "
            f"Expected:\n{self.expected()}"
        )


def _has(folder: Path, parts: tuple[str, ...], enough: Callable[[Iterable[bool]], bool] = all) -> bool:
    return enough((folder / part).exists() for part in parts)


@dataclass(frozen=True)
class FolderLayout:
    """One folder per split; a file's name holds its identity and camera.

    ``pattern`` has the groups ``identity`` and ``camera`` and must match the whole name without its
    suffix. Where it has the groups ``sequence`` and ``frame``, their digits, one after the other, are the
    frame: recordings of a camera follow each other, and each counts its frames anew, with as many digits.
    ``cameras`` maps the numbers in the names to 0, 1, ...; None takes whatever is found, in order.
    Identity ``junk`` is left out, but for the splits of ``unknown``: there it is somebody whom nobody knows.
    """

    folders: Mapping[str, str]
    pattern: str
    examples: tuple[str, ...]
    cameras: Mapping[int, int] | None
    junk: int = -1
    unknown: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders of the three splits."""
        return tuple(self.folders[split] for split in SPLITS)

    def describe(self) -> str:
        """Folders and example names."""
        lines = [f"  {self.folders[split]}/  ({split})" for split in SPLITS]
        return "\n".join([*lines, f"  with names such as {', '.join(self.examples)}"])

    def read(self, root: Path) -> Reading:
        """Read the three folders."""
        regex = re.compile(self.pattern, re.DOTALL)
        raw: dict[str, list[ImageRecord]] = {}
        ignored: dict[str, int] = {}
        unread: list[Unread] = []
        for split in SPLITS:
            raw[split], ignored[split] = self._read_folder(root, split, regex, unread)
        found = sorted({row.camera for rows in raw.values() for row in rows})
        numbers = self.cameras or {camera: index for index, camera in enumerate(found)}
        names = {index: f"c{number}" for number, index in numbers.items()}
        return Reading(
            root=root,
            splits={
                split: tuple(replace(row, camera=numbers[row.camera]) for row in rows)
                for split, rows in raw.items()
            },
            camera_names=tuple(names[index] for index in sorted(names)),
            ignored=ignored,
            unread=tuple(unread),
            notes=(*same_stems(raw), *_same_people(raw)),
        )

    def _read_folder(
        self, root: Path, split: str, regex: re.Pattern[str], unread: list[Unread]
    ) -> tuple[list[ImageRecord], int]:
        """Give the records, their cameras as the names number them, and how many are junk."""
        folder = self.folders[split]
        names = image_files(root / folder)
        rows: list[ImageRecord] = []
        junk = 0
        for name in names:
            match = regex.fullmatch(name.rpartition(".")[0])
            if match is None or max(len(match["identity"]), len(match["camera"])) > MOST_DIGITS:
                unread.append(Unread(split, f"{folder}/{name}", "the name does not fit"))
                continue
            identity, camera = int(match["identity"]), int(match["camera"])
            if identity == self.junk and split not in self.unknown:
                junk += 1
            elif self.cameras is not None and camera not in self.cameras:
                unread.append(Unread(split, f"{folder}/{name}", f"there is no camera {camera}"))
            else:
                known = UNKNOWN_IDENTITY if identity == self.junk else identity
                rows.append(ImageRecord(f"{folder}/{name}", camera, known, frame=_frame(match)))
        if not rows:
            raise DatasetError(
                f"Nothing in {root / folder} can be read: {counted(len(names), 'image file')}, "
                f"{junk} of them junk{such_as(u for u in unread if u.split == split)}. "
                f"Expected:\n{self.describe()}"
            )
        return rows, junk


def _frame(match: re.Match[str]) -> int:
    """Read the frame of a name, if it has one that fits 64 bits."""
    found = match.groupdict()
    digits = f"{found.get('sequence') or ''}{found['frame']}" if found.get("frame") else ""
    return int(digits) if 0 < len(digits) <= MOST_DIGITS else NO_TRACK


def _same_people(raw: Mapping[str, list[ImageRecord]]) -> tuple[str, ...]:
    """Note identities that are both trained on and looked for: what is measured then is no test."""
    train, query = ({row.identity for row in raw[split]} - {UNKNOWN_IDENTITY} for split in ("train", "query"))
    if not (both := train & query):
        return ()
    return (f"{len(both)} identities are in train and in query, such as {min(both)}: the test is none.",)


def same_stems(raw: Mapping[str, list[ImageRecord]]) -> tuple[str, ...]:
    """Note the files of one split that differ in nothing but their suffix: likely the same image twice."""
    notes = []
    for split, rows in raw.items():
        seen: dict[str, str] = {}
        twice = []
        for row in rows:
            stem = row.path.rpartition(".")[0]
            if stem in seen:
                twice.append(f"{seen[stem]} and {row.path}")
            seen[stem] = row.path
        if twice:
            notes.append(f"{split}: {len(twice)} names are there twice with another suffix: {twice[0]}")
    return tuple(notes)


def refuse_repeated(paths: Iterable[str], one: str, fault: str, advice: str) -> None:
    """Raise DatasetError where a path comes again; the message names those: N ``one`` ``fault``."""
    seen: set[str] = set()
    twice = [path for path in paths if path in seen or seen.add(path)]  # type: ignore[func-returns-value]
    if twice:
        raise DatasetError(f"{counted(len(twice), one)} {fault}{first_few(twice)}. {advice}")


def such_as(left_out: Iterable[Unread]) -> str:
    """Name the first few files of those that gave no record, as ``first_few`` does."""
    return first_few([item.path for item in left_out])


def first_few(names: list[str], limit: int = 5) -> str:
    """Give ``", such as a, b"`` for a message, or nothing."""
    return f", such as {some(names, limit)}" if names else ""
