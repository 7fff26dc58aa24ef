"""New crops into a prepared data set of one's own: what was there keeps its place and its numbers."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from icsr_cli.datasets.folder import Row, check_splits, names_of, natural, number_identities, records_of
from icsr_cli.datasets.layout import SPLITS, Reading, Unread, first_few, such_as
from icsr_cli.errors import DatasetError
from icsr_cli.files import checksum
from icsr_cli.types import NO_TRACK, UNKNOWN_IDENTITY, Dataset, ImageRecord


def extend(
    dataset: Dataset, names: Sequence[str] | None, root: Path, rows: Sequence[Row], unread: Sequence[Unread]
) -> Reading:
    """Add the ``rows`` read below ``root`` behind what is there, split by split.

    ``names``: those of the known identities by number, none where they are numbers, None if nobody kept them.
    Cameras and identities of known names are the known ones; new ones are counted on. Tracks are new ones: a
    tracker counts anew. A frame comes after those of its camera: where the new ones begin before the known
    ones end, all are moved on together. Rows that name their split go there. Of the others those without an
    identity are for training, those of somebody in the gallery or the queries go to the gallery, the rest is
    for training. Images that are there already, by name or by content, are left out and named.
    Raises DatasetError where nothing is new, a split has an unknown name, only one of query and gallery would
    have images, or a query no identity.
    """
    fresh, twice = _fresh(dataset, root, rows)
    if not fresh:
        known = f"{len(twice)} images are there already, by name or by content{such_as(twice)}"
        others = f"; {len(unread)} do not fit{such_as(unread)}" if unread else ""
        raise DatasetError(f"There is nothing new under {root}: {known}{others}.")
    if wrong := sorted({row.split for row in fresh if row.split} - set(SPLITS)):
        raise DatasetError(f"Unknown splits {', '.join(wrong)}. Each image is of one of {', '.join(SPLITS)}.")
    cameras = {name: number for number, name in enumerate(dataset.camera_names)}
    for name in sorted({row.camera for row in fresh} - cameras.keys(), key=natural):
        cameras[name] = len(cameras)
    numbers, identities = _identities(dataset, names, fresh)
    used = max(int(split.tracks.max(initial=NO_TRACK)) for split in dataset.splits.values())
    records = records_of(fresh, cameras, numbers, used + 1)
    notes = [f"{len(fresh):,} images were added from {root}"]
    records, moved = _later(dataset, records)
    if moved:
        notes.append(f"frames of new images were moved on by {moved:,}: their cameras' time began anew")
    splits = {name: list(dataset.splits[name].records) if name in dataset.splits else [] for name in SPLITS}
    tested = {r.identity for name in ("query", "gallery") for r in splits[name]} - {UNKNOWN_IDENTITY}
    for row, record in zip(fresh, records, strict=True):
        splits[row.split or ("gallery" if record.identity in tested else "train")].append(record)
    check_splits(splits)
    return Reading(
        dataset.root,
        {name: tuple(found) for name, found in splits.items() if found},
        tuple(cameras),
        unread=(*twice, *unread),
        notes=tuple(notes),
        identities=identities,
    )


def _fresh(dataset: Dataset, root: Path, rows: Sequence[Row]) -> tuple[list[Row], list[Unread]]:
    """Part the rows into new ones, their paths relative to the data set's root, and what is there already."""
    known = {record.path for split in dataset.splits.values() for record in split.records}
    base = os.path.relpath(root, dataset.root)
    place = "" if base == "." else f"{Path(base).as_posix()}/"
    new, twice = [], []
    for row in rows:
        path = place + row.path
        if path in known:
            twice.append(Unread(row.split or "", path, "it is there already"))
        else:
            new.append(replace(row, path=path))
    copies = _copies(dataset.root, sorted(known), [row.path for row in new])
    twice += [Unread("", path, f"it is there already as {first}") for path, first in copies.items()]
    return [row for row in new if row.path not in copies], twice


def _copies(root: Path, known: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """Name the new images with the bytes of one that is known, or of one that is new and comes before.

    Only files of one size are read.
    """
    sizes: dict[int, list[str]] = defaultdict(list)
    for path in (*known, *new):
        if (root / path).is_file():  # what cannot be read is named later
            sizes[(root / path).stat().st_size].append(path)
    fresh, found = set(new), {}
    for paths in sizes.values():
        if len(paths) == 1 or fresh.isdisjoint(paths):
            continue
        first: dict[str, str] = {}
        for path in paths:
            digest = checksum(root / path)
            if digest and first.setdefault(digest, path) != path and path in fresh:
                found[path] = first[digest]
    return found


def _identities(
    dataset: Dataset, names: Sequence[str] | None, rows: Sequence[Row]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Give the number of each identity's name, and the names by number where they are not the numbers.

    Raises DatasetError where numbers are there, and names come; or nobody has kept the names that are there.
    """
    known = {r.identity for split in dataset.splits.values() for r in split.records} - {UNKNOWN_IDENTITY}
    coming = {row.identity for row in rows if row.identity is not None}
    if not coming:
        return {}, tuple(names or ())
    if not known:
        return (numbers := number_identities(coming)), names_of(numbers)
    if names is None:
        raise DatasetError(
            f"{dataset.name!r} was prepared before names of identities were kept. Prepare all images anew."
        )
    if names:
        numbers = {name: number for number, name in enumerate(names)}
        for name in sorted(coming - numbers.keys(), key=natural):
            numbers[name] = len(numbers)
        return numbers, tuple(numbers)
    if names_of(numbers := number_identities(coming)):
        raise DatasetError(
            f"Identities are numbers in {dataset.name!r}, and the new images have names"
            f"{first_few(sorted(coming))}. Give them numbers, or prepare all images anew."
        )
    return numbers, ()


def _later(dataset: Dataset, records: Sequence[ImageRecord]) -> tuple[list[ImageRecord], int]:
    """Move frames on, all by one number, so that no camera's new ones begin before its known ones end."""
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    for split in dataset.splits.values():
        for record in split.records:
            last[record.camera] = max(last.get(record.camera, NO_TRACK), record.frame)
    for record in records:
        if record.frame != NO_TRACK:
            first[record.camera] = min(first.get(record.camera, record.frame), record.frame)
    moved = max((last.get(camera, NO_TRACK) + 1 - frame for camera, frame in first.items()), default=0)
    if moved <= 0:
        return list(records), 0
    return [replace(r, frame=r.frame + moved) if r.frame != NO_TRACK else r for r in records], moved
