"""The index of a prepared data set: written once by ``prepare``, read in a moment by everything else.

``<data root>/<name>/index.json`` says what it is and where the images lie; ``index.csv`` beside it has one
line per image: split, path, camera (from 0), identity (-1: nobody knows); and track and frame (-1 as well)
where the data set knows of any.
"""

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from icsr_cli.datasets.run_settings import settings
from icsr_cli.errors import DatasetError, did_you_mean, reason
from icsr_cli.files import read_bytes, read_json, whole_file
from icsr_cli.types import NO_TRACK, Dataset, ImageRecord, Split

_KEPT = ".index.csv.before"
#: Columns of index.csv by the format; format 1 had no checksum of its own.
_HEADERS = {
    2: ["split", "path", "camera", "identity"],
    3: ["split", "path", "camera", "identity", "track", "frame"],
}


def write(
    data_root: Path,
    dataset: Dataset,
    *,
    bad: Sequence[Mapping[str, str]] = (),
    details: Mapping[str, Any] | None = None,
    distractor: int | None = None,
) -> Path:
    """Write both files, each whole or not at all, and give the path of index.json.

    ``bad`` are the images that were left out (split, path, reason); ``details`` is what the reader wants to
    be found again: the pattern of own crops, the dials of a rendered world. ``distractor`` as in ``counts``.
    The JSON holds the checksums of the CSV and of itself: of damage, and of a crash between the two, the
    reader knows.
    """
    folder = data_root / dataset.name
    folder.mkdir(parents=True, exist_ok=True)
    # Where no image has a track or a frame, the index is what it always was.
    timed = any(found is not None for split in dataset.splits.values() for found in split.when().values())
    form = 3 if timed else 2
    root, base = dataset.root.resolve(), data_root.resolve()
    table = _table(dataset, form)
    head = {
        "format": form,
        "name": dataset.name,
        "layout": dataset.layout,
        "root": root.relative_to(base).as_posix() if root.is_relative_to(base) else str(root),
        "prepared": datetime.now(UTC).isoformat(timespec="microseconds"),
        "cameras": list(dataset.camera_names),
        "splits": {name: counts(split, distractor) for name, split in dataset.splits.items()},
        "notes": list(dataset.notes),
        "bad": [dict(item) for item in bad],
        "details": dict(details or {}),
        "index_sha256": hashlib.sha256(table).hexdigest(),
    }
    text = json.dumps({**head, "sha256": _checksum(head)}, indent=1)
    with (
        _old_or_new(folder / "index.csv"),
        whole_file(folder / "index.json") as first,
        whole_file(folder / "index.csv") as second,
    ):
        first.write_text(text, encoding="utf-8")
        second.write_bytes(table)
    return folder / "index.json"


@contextmanager
def _old_or_new(table: Path) -> Iterator[None]:
    """Keep the table that is there by a second name until both files are new: ``load`` takes what belongs."""
    kept = table.with_name(_KEPT)
    kept.unlink(missing_ok=True)
    if table.is_file():
        shutil.copyfile(table, kept)
    try:
        yield
    except BaseException:
        if not kept.is_file() or kept.read_bytes() == table.read_bytes():
            kept.unlink(missing_ok=True)
        raise
    kept.unlink(missing_ok=True)


def counts(split: Split, distractor: int | None = None) -> dict[str, int]:
    """Count the images, identities, cameras and, if there are any, tracks of a split; not what is unknown.

    Nor is the identity ``distractor``, if there is one, that of a person.
    """
    identities = set(split.identities.tolist()) - {-1, distractor}
    found = {"images": len(split), "identities": len(identities), "cameras": len(set(split.cameras.tolist()))}
    return found | ({"tracks": len(set(split.tracks.tolist()) - {NO_TRACK})} if split.has_tracks else {})


def is_name(name: str) -> bool:
    """Whether a data set may be called so."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None


def head(data_root: Path, name: str) -> dict[str, Any]:
    """Read index.json of ``name``. Raises DatasetError with the command to run where there is none."""
    path = data_root / name / "index.json"
    try:
        found = read_json(path)
    except FileNotFoundError:
        there = names(data_root)
        known = f"{did_you_mean(name, there)} Prepared are: {', '.join(there)}." if there else ""
        way = (
            f" Name the folder it is in (--data-root), or run: {_command(name)}"
            if is_name(name)
            else " Nor is there a folder of that name."
        )
        raise DatasetError(f"The data set {name!r} is not prepared under {data_root}.{known}{way}") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"Cannot read {path}: {reason(error)}. Run again: {_command(name)}") from error
    if not isinstance(found, dict) or found.get("format") not in tuple(_HEADERS):  # it may be no number
        raise DatasetError(f"{path} is damaged, or of another version. Run again: {_command(name)}")
    if found.pop("sha256", None) != _checksum(found):
        raise DatasetError(f"{path} is damaged: its checksum does not fit. Run again: {_command(name)}")
    return found


def _checksum(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def load(name: str, data_root: Path) -> Dataset:
    """Load a prepared data set from its index; no image is touched.

    Raises DatasetError where it is not prepared, the index is damaged, or its images are gone.
    """
    about = head(data_root, name)
    root = Path(about["root"])
    root = root if root.is_absolute() else data_root / root
    if not root.is_dir():
        raise DatasetError(
            f"The images of {name!r} were in {root}, which is gone. Put them back, or run: "
            f"{_command(name, about)}"
        )
    table = _read_table(data_root / name, about)
    return Dataset(
        name=name,
        root=root,
        splits=_splits(table, root, about["splits"]),
        camera_names=tuple(about["cameras"]),
        notes=tuple(about["notes"]),
        layout=about["layout"],
        settings=_settings(name, about),
    )


def _settings(name: str, about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the settings of a run on it: images have the size that they were prepared at."""
    own = about["details"].get("settings") or settings(name, about["layout"])
    size = dict(zip(("height", "width"), about["details"].get("size", ()), strict=False))
    return {**own, "image": {**own.get("image", {}), **size}}


def _read_table(folder: Path, about: Mapping[str, Any]) -> bytes:
    """Read index.csv, or the one before it where writing ended between the two files."""
    path, kept = folder / "index.csv", folder / _KEPT
    command = _command(folder.name, about)
    try:
        table = read_bytes(path)
    except OSError as error:
        raise DatasetError(f"Cannot read {path}: {error.strerror}. Run again: {command}") from error
    for found in (table, kept.read_bytes() if kept.is_file() else b""):
        if hashlib.sha256(found).hexdigest() == about["index_sha256"]:
            return found
    raise DatasetError(f"{path} does not belong to index.json beside it. Run again: {command}")


def names(data_root: Path) -> tuple[str, ...]:
    """Give the names of all prepared data sets, sorted."""
    return tuple(sorted(path.parent.name for path in data_root.glob("*/index.json")))


def newest(data_root: Path) -> str:
    """Give the name of the data set that was prepared last. Raises DatasetError where there is none."""
    found = [(when, name) for name in names(data_root) if (when := _prepared_at(data_root, name))]
    if not found:
        raise DatasetError(
            f"No data set is prepared under {data_root}. Name another folder (--data-root), or run: "
            "icsr prepare synthetic"
        )
    return max(found)[1]


def _prepared_at(data_root: Path, name: str) -> str:
    try:
        return str(head(data_root, name)["prepared"])
    except (DatasetError, KeyError):  # a damaged index is reported where it is asked for
        return ""


def _command(name: str, about: Mapping[str, Any] | None = None) -> str:
    """Say how to prepare it; ``about`` is what index.json says, where it can be read."""
    from icsr_cli.datasets.published import available

    if about is not None and "plugin" in about["details"]:
        return f"icsr prepare {name} --plugin {about['details']['plugin'][0]} --source PATH"
    if name in available() or name == "synthetic":
        return f"icsr prepare {name}"
    if about is not None and about["layout"] == "synthetic":
        return f"icsr prepare synthetic --name {name}"
    return f"icsr prepare folder {name} --source DIR --pattern '{{camera}}/{{name}}.jpg'"


def _table(dataset: Dataset, form: int) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    header = _HEADERS[form]
    writer.writerow(header)
    of_record = attrgetter(*header[1:])
    for name, split in dataset.splits.items():
        writer.writerows((name, *of_record(record)) for record in split.records)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _splits(table: bytes, root: Path, expected: Mapping[str, Any]) -> dict[str, Split]:
    # surrogateescape: a file name is bytes, and may be no UTF-8.
    reader = csv.reader(io.StringIO(table.decode("utf-8", "surrogateescape"), newline=""))
    next(reader)
    rows: dict[str, list[ImageRecord]] = {name: [] for name in expected}
    for split, path, *numbers in reader:
        rows[split].append(ImageRecord(path, *map(int, numbers)))
    return {name: Split(root, tuple(records)) for name, records in rows.items()}
