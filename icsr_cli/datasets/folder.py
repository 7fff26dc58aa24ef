"""A user's own crops: the camera of each image from its path or a CSV file; identities and tracks if any."""

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import numpy as np

from icsr_cli.datasets.layout import MOST_DIGITS, SPLITS, Reading, Unread, refuse_repeated, such_as
from icsr_cli.datasets.scan import IMAGE_SUFFIXES, image_files
from icsr_cli.errors import DatasetError, UsageError, reason, some
from icsr_cli.files import check_header
from icsr_cli.types import NO_TRACK, UNKNOWN_IDENTITY, ImageRecord

FIELDS = ("camera", "id", "split", "track", "frame", "name")
#: Both stages train one network, so that the second can begin from the first.
SETTINGS: Final[dict[str, Any]] = {"method": "camera-aware", "global": {"model": {"arch": "resnet50"}}}
_TOKEN = re.compile(r"\{(?P<field>[^{}]*)\}|\*\*/?|\*|\?|[^{*?]+|.")
_UNKNOWN = frozenset({"", "-1", "?", "none", "nan"})
#: Bytes of a name that is not UTF-8, as private characters, which RE2 takes.
_PRIVATE = {0xDC00 + byte: 0xF700 + byte for byte in range(128, 256)}
_PUBLIC = {private: public for public, private in _PRIVATE.items()}


@dataclass(frozen=True)
class Row:
    """One image as the user describes it; what nobody has said is None, and ``frame`` ``NO_TRACK``.

    A ``track`` has its name within its camera.
    """

    path: str
    camera: str
    identity: str | None = None
    split: str | None = None
    track: str | None = None
    frame: int = NO_TRACK


class Pattern(NamedTuple):
    """How paths read: a regular expression of RE2, and the field of each of its groups."""

    regex: Any
    fields: tuple[str, ...]

    def read(self, path: str) -> dict[str, str] | None:
        """Give the fields of a POSIX path, in time linear in its length; None where it does not fit."""
        plain = path if path.isprintable() else path.translate(_PRIVATE)
        match = self.regex.fullmatch(plain)
        if match is None:
            return None
        found: dict[str, str] = {}
        for name, value in zip(self.fields, match.groups(), strict=True):
            if found.setdefault(name, value) != value:
                return None
        return found if plain == path else {name: value.translate(_PUBLIC) for name, value in found.items()}


def compile_pattern(pattern: str) -> Pattern:
    """Turn a pattern into what reads POSIX paths relative to the source.

    ``{camera}`` (needed), ``{id}``, ``{split}``, ``{track}`` and ``{name}`` each stand for a part of one
    folder's or file's name, the shortest that fits, ``*`` too, ``{frame}`` for all digits of a number, ``?``
    for one character, ``**`` for any folders. Upper and lower case of the suffix are the same. A field that
    comes twice has to read the same twice. Raises UsageError.
    """
    import re2  # linear: however many stars, a name is read at once

    regex, fields = "", []
    stem, dot, suffix = pattern.rpartition(".")
    fixed_suffix = dot + suffix if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else ""
    for match in _TOKEN.finditer(stem if fixed_suffix else pattern):
        token, name = match[0], match["field"]
        if name is not None:
            if name not in FIELDS:
                raise UsageError(
                    f"--pattern {pattern!r} has the field {{{name}}}; there are "
                    f"{', '.join(f'{{{field}}}' for field in FIELDS)}."
                )
            regex += f"([0-9]{{1,{MOST_DIGITS}}})" if name == "frame" else "([^/]+?)"
            fields.append(name)
        elif token.startswith("**"):
            regex += "(?:[^/]+/)*" if token.endswith("/") else ".*"
        else:
            regex += {"*": "[^/]*", "?": "[^/]"}.get(token) or re.escape(token)
    if "camera" not in fields:
        raise UsageError(
            f"--pattern {pattern!r} has no {{camera}}: where a path says which camera took the image. "
            "Examples: '{camera}/{name}.jpg', '{id}_c{camera}_*.jpg'."
        )
    options = re2.Options()
    options.dot_nl, options.log_errors = True, False
    try:
        compiled = re2.compile(
            regex + (f"(?i:{re.escape(fixed_suffix)})" if fixed_suffix else ""), options=options
        )
    except (re2.error, UnicodeEncodeError):
        raise UsageError(f"--pattern is too long or no text: {pattern[:100]!r}...") from None
    return Pattern(compiled, tuple(fields))


def read_pattern(source: Path, pattern: str) -> tuple[list[Row], list[Unread]]:
    """Give a row for every image file under ``source`` whose path fits, and the files that do not fit."""
    names = compile_pattern(pattern)
    rows, unread = [], []
    for path in image_files(source, recursive=True):
        found = names.read(path)
        if found is None:
            unread.append(Unread("", path, "the path does not fit the pattern"))
            continue
        identity, track = _known(found.get("id")), _known(found.get("track"))
        frame = int(found.get("frame", NO_TRACK))
        rows.append(Row(path, found["camera"], identity, found.get("split"), track, frame))
    return rows, unread


def read_csv(path: Path, source: Path | None) -> tuple[Path, list[Row], list[Unread]]:
    """Read a CSV file with the columns path, camera and, if known, id, split, track, and frame or time.

    A frame is a whole number; a time is one in seconds, or a date and time as ISO 8601 writes them, the date
    with its hyphens (20260501 is seconds), and is kept in milliseconds. Paths are relative to ``source``, or
    to the folder of the CSV file. Gives the root, rows, and the lines that cannot be used. Raises
    DatasetError where columns are missing or paths come twice.
    """
    root = (source or path.parent).resolve()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [(column or "").strip().lower() for column in reader.fieldnames or []]
            reader.fieldnames = columns
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"Cannot read {path}: {reason(error)}. Expected a CSV file in UTF-8.") from error
    if not {"path", "camera"} <= set(columns):
        raise DatasetError(
            f"{path} has the columns {', '.join(columns) or '(none)'}. Its first line must be "
            "path,camera or path,camera,id or path,camera,id,split, with commas; track and frame, or time, "
            "may follow."
        )
    check_header(path, columns, DatasetError)
    rows, unread = [], []
    name_of_root = cache(partial(_name_of_root, root))  # once for each folder, not for each line
    for number, line in lines:
        row = _csv_row(line, root, name_of_root)
        if isinstance(row, Row):
            rows.append(row)
        else:
            unread.append(Unread("", f"{path.name}:{number}: {line.get('path') or ''}", row))
    refuse_repeated((row.path for row in rows), "path", f"named twice in {path}", "Each image is one line.")
    return root, rows, unread


def _csv_row(
    line: Mapping[str, str | None],
    root: Path,
    name_of_root: Callable[[PurePosixPath], PurePosixPath | None],
) -> Row | str:
    name, camera = (line.get("path") or "").strip(), (line.get("camera") or "").strip()
    if not name or not camera:
        return "no path or no camera"
    if "\0" in name:
        return "no file has a NUL in its path"
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute():
        if (above := name_of_root(path.parent)) is None:
            return f"it does not lie under {root}: give --source"
        path = path.relative_to(above)
    if ".." in path.parts:
        return f"it leads out of {root}: give --source"
    try:
        frame = _frame(line)
    except (ValueError, OverflowError):
        return "the frame is no whole number, or the time neither seconds nor such as 2026-05-01T12:00:00"
    split = (line.get("split") or "").strip() or None
    return Row(path.as_posix(), camera, _known(line.get("id")), split, _known(line.get("track")), frame)


def _name_of_root(root: Path, folder: PurePosixPath) -> PurePosixPath | None:
    """Give the part of an absolute path that is the root, which a link may call by another name."""
    return next(
        (above for above in reversed((folder, *folder.parents)) if os.path.realpath(above) == str(root)), None
    )


def _frame(line: Mapping[str, str | None]) -> int:
    """Read the frame, else the time in milliseconds, of a line. Raises ValueError, OverflowError.

    What is a number is seconds, a date without hyphens too.
    """
    frame, time = _known(line.get("frame")), _known(line.get("time"))
    if frame is not None:
        found = int(frame)
    elif time is None:
        return NO_TRACK
    else:
        try:
            found = round(float(time) * 1000)
        except ValueError:
            when = datetime.fromisoformat(time.replace("Z", "+00:00"))
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            found = round(when.timestamp() * 1000)
    if not 0 <= found < 10**MOST_DIGITS:
        raise ValueError(found)
    return found


def _known(identity: str | None) -> str | None:
    text = (identity or "").strip()
    return None if text.lower() in _UNKNOWN else text


def assemble(
    root: Path, rows: Sequence[Row], unread: Sequence[Unread], *, seed: int = 0, test_share: float = 0.5
) -> Reading:
    """Make the splits, and number cameras, identities and tracks.

    A track under two cameras is two tracks.
    Where rows name their split it is taken. Otherwise images without identity are for training, and those
    with one for evaluation; if every image has one, ``test_share`` of the identities, drawn with ``seed``,
    are for evaluation and the others for training. Of the images for evaluation one per identity and camera
    is a query, if another camera has seen that identity.
    Raises DatasetError where nothing can be trained on, or a split has an unknown name.
    """
    if not rows:
        raise DatasetError(f"No image under {root} fits: {len(unread)} do not{such_as(unread)}.")
    if not 0 < test_share < 1:
        raise UsageError(f"--test-share is {test_share}, expected a share between 0 and 1, such as 0.5.")
    cameras = number_cameras(rows)
    identities = number_identities(row.identity for row in rows)
    records = records_of(rows, cameras, identities)
    if any(row.split for row in rows):
        splits, notes = _named_splits(rows, records)
    else:
        splits, notes = _drawn_splits(records, np.random.default_rng(seed), test_share)
    if not splits.get("train"):
        raise DatasetError(
            "No image is left to train on. Leave the identities of some images empty, or name the splits."
        )
    return Reading(
        root,
        {name: tuple(splits[name]) for name in SPLITS if splits.get(name)},
        tuple(cameras),
        unread=tuple(unread),
        notes=tuple(notes),
        identities=names_of(identities),
    )


def records_of(
    rows: Sequence[Row], cameras: Mapping[str, int], identities: Mapping[str, int], first_track: int = 0
) -> list[ImageRecord]:
    """Give each row its numbers, by its names.

    Tracks count on from ``first_track``, those of one camera after the other's, each in the order of names.
    """
    known = {(row.camera, row.track) for row in rows if row.track is not None}
    in_order = sorted(known, key=lambda track: (cameras[track[0]], natural(track[1])))
    tracks: dict[tuple[str, str | None], int] = {
        track: number for number, track in enumerate(in_order, start=first_track)
    }
    return [
        ImageRecord(
            row.path,
            cameras[row.camera],
            identities.get(row.identity or "", UNKNOWN_IDENTITY),
            tracks.get((row.camera, row.track), NO_TRACK),
            row.frame,
        )
        for row in rows
    ]


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Give the key by which names sort as people count: 2 before 10; of 1 and 01, as text sorts."""
    parts = [
        (0, len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]
    return parts, name


def number_cameras(rows: Iterable[Row]) -> dict[str, int]:
    """Give each camera its number, from 0 in the order in which people count: 2 before 10."""
    names = sorted({row.camera for row in rows}, key=natural)
    return {name: number for number, name in enumerate(names)}


def number_identities(names: Iterable[str | None]) -> dict[str, int]:
    """Keep numbers as they are; where there are other names, or two spellings of a number, count from 0.

    A number of more than 18 digits, such as a time of day with all before it, is a name.
    """
    known = sorted({name for name in names if name is not None}, key=natural)
    numbers = {name: int(name) for name in known if _is_number(name)}
    if len(set(numbers.values())) == len(known):
        return numbers
    return {name: index for index, name in enumerate(known)}


def _is_number(name: str) -> bool:
    return name.isdecimal() and len(name) <= MOST_DIGITS


def names_of(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """Give the names by their number, none where each is its number."""
    return () if all(_is_number(name) and int(name) == n for name, n in numbers.items()) else tuple(numbers)


def _named_splits(
    rows: Sequence[Row], records: Sequence[ImageRecord]
) -> tuple[dict[str, list[ImageRecord]], list[str]]:
    splits: dict[str, list[ImageRecord]] = defaultdict(list)
    wrong = sorted({row.split or "(empty)" for row in rows} - set(SPLITS))
    if wrong:
        raise DatasetError(
            f"Unknown splits {some(wrong)}. Each image is of one of {', '.join(SPLITS)}; "
            "or name no split at all."
        )
    for row, record in zip(rows, records, strict=True):
        splits[row.split or ""].append(record)
    check_splits(splits)
    others = _without_id(splits["gallery"])
    return splits, [f"gallery: {others} images without id are distractors"] if others else []


def check_splits(splits: Mapping[str, Sequence[ImageRecord]]) -> None:
    """Raise DatasetError where only one of query and gallery has images, or a query has no identity."""
    if bool(splits["query"]) != bool(splits["gallery"]):
        raise DatasetError("Evaluation needs both a query and a gallery split; only one of them has images.")
    if asked := _without_id(splits["query"]):
        raise DatasetError(f"{asked} images of the query split have no id: nothing could be right for them.")


def _without_id(records: Sequence[ImageRecord]) -> int:
    return sum(record.identity == UNKNOWN_IDENTITY for record in records)


def _drawn_splits(
    records: Sequence[ImageRecord], random: np.random.Generator, test_share: float
) -> tuple[dict[str, list[ImageRecord]], list[str]]:
    named = [record for record in records if record.identity != UNKNOWN_IDENTITY]
    if not named:
        return {"train": list(records)}, ["no identities: it can be trained on, not evaluated"]
    train = [record for record in records if record.identity == UNKNOWN_IDENTITY]
    notes = []
    if not train:
        people = np.array(sorted({record.identity for record in named}))
        random.shuffle(people)
        test = set(people[: max(1, round(len(people) * test_share))].tolist()) if len(people) > 1 else set()
        train = [record for record in named if record.identity not in test]
        named = [record for record in named if record.identity in test]
        notes.append(
            f"every image has an id: {len(test)} of {len(people)} identities are kept for evaluation"
        )
    queries = _draw_queries(named, random)
    if not queries:
        notes.append(
            "no identity for evaluation was seen by two cameras: it can be trained on, not evaluated"
        )
        return {"train": [*train, *named]}, notes
    return {"train": train, "query": queries, "gallery": _gallery(named, queries)}, notes


def _draw_queries(named: Sequence[ImageRecord], random: np.random.Generator) -> list[ImageRecord]:
    groups: dict[tuple[int, int], list[ImageRecord]] = defaultdict(list)
    for record in named:
        groups[record.identity, record.camera].append(record)
    seen_by = Counter(identity for identity, _ in groups)
    return [
        members[int(random.integers(len(members)))]
        for (identity, _), members in sorted(groups.items())
        if seen_by[identity] > 1
    ]


def _gallery(named: Sequence[ImageRecord], queries: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Leave the queries out, unless a query is the only image of its identity and camera.

    Then other cameras' queries need it; its own evaluation passes over images of the same camera.
    """
    group = Counter((record.identity, record.camera) for record in named)
    drawn = {record.path for record in queries}
    return [r for r in named if r.path not in drawn or group[r.identity, r.camera] == 1]
