"""Prepare a data set: unpack or render, read the layout, decode every image once, write the index."""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from icsr_cli import config, datasets
from icsr_cli.datasets import folder as own_crops
from icsr_cli.datasets import index, places
from icsr_cli.datasets.addition import extend
from icsr_cli.datasets.archives import EXPANSION
from icsr_cli.datasets.derived import derive_tracks
from icsr_cli.datasets.folder import Row
from icsr_cli.datasets.layout import Benchmark, FolderLayout, Reading, Unread, first_few
from icsr_cli.datasets.own_file import OwnFile
from icsr_cli.datasets.published import market1501
from icsr_cli.errors import DatasetError, UsageError, counted
from icsr_cli.images.store import BadImage, Store, build_pixels, check_images, other_files, verify_pixels
from icsr_cli.progress import Progress
from icsr_cli.synthesis import World, render, tracks_of
from icsr_cli.types import NO_TRACK, Dataset, ImageRecord, Size, Split

#: More bad images than this share of a split are an error, unless the user allows them.
MAX_BAD_SHARE = 0.01
SYNTHETIC = "synthetic"
FOLDER = "folder"
PLUGIN = "plugin"


@dataclass(frozen=True)
class SplitReport:
    """One row of the table: what was read, what the authors published, what was left out."""

    split: str
    images: int
    identities: int
    cameras: int
    published_images: int | None
    published_identities: int | None
    ignored: int
    distractors: int
    bad: int
    tracks: int


@dataclass(frozen=True)
class PreparationReport:
    """What ``prepare`` did. ``differences`` are counts that are not the published ones."""

    name: str
    root: Path
    index: Path
    splits: tuple[SplitReport, ...]
    cameras: tuple[str, ...]
    differences: tuple[str, ...]
    bad: tuple[Unread, ...]
    unread: tuple[Unread, ...]
    notes: tuple[str, ...]


class How(TypedDict, total=False):
    """What every preparation may be told besides; as of ``Plan``."""

    store: Store
    allow_bad: bool
    workers: int | None
    progress: Progress


@dataclass(frozen=True)
class Plan:
    """What the last steps need to know, whatever the data set is.

    ``size``: the (height, width) at which pixels are kept; ``store``: how. ``allow_bad``: a split may have
    more than 1 % unreadable images. ``workers``: processes that decode; by default the CPUs there are.
    """

    name: str
    layout: str
    data_root: Path
    size: Size = (256, 128)
    store: Store = "raw"
    allow_bad: bool = False
    workers: int | None = None
    progress: Progress = field(default_factory=Progress)
    benchmark: Benchmark | None = None
    distractor: int | None = None

    @property
    def folder(self) -> Path:
        """Where everything of this data set lies."""
        return self.data_root / self.name


def prepare(
    what: str | OwnFile,
    source: Path | None,
    data_root: Path,
    *,
    size: Size | None = None,
    expansion: int = EXPANSION,
    tracks_within: int | None = None,
    **how: Unpack[How],
) -> PreparationReport:
    """Prepare a published data set from an archive or a folder; without ``source`` it is looked for.

    ``what``: its name, or a file of the user's own that defines one; the settings of that are kept in the
    index, and nothing runs the file again. ``size``: the published one if left out. An archive may hold
    ``expansion`` times its size. ``tracks_within``: derive tracks, by the identities, of images at most so
    many frames apart.

    Raises:
        DatasetError: not found, not in its layout, more than 1 % of a split unreadable, disk full, or the
            reader of the user's own file fails.
        UsageError: no frames to derive tracks from; the name of the user's own belongs to another data
            set, or its settings do not fit.
    """
    benchmark = datasets.benchmark(what) if isinstance(what, str) else what.benchmark
    read, layout, details = benchmark.read, benchmark.name, {}
    if not isinstance(what, str):
        check_free(benchmark.name, data_root, PLUGIN)
        config.load(benchmark.name, own=benchmark.run_settings)
        read, layout = what.read, PLUGIN
        details = {"plugin": [str(what.path), what.digest], "settings": benchmark.run_settings}
    size = size or (benchmark.height, benchmark.width)
    distractor = benchmark.distractor
    plan = Plan(benchmark.name, layout, data_root, size, benchmark=benchmark, distractor=distractor, **how)
    source = source or places.published(benchmark, data_root)
    with places.alone(plan.folder):
        reading = places.read(source, plan.folder, read, expansion, plan.progress)
        if tracks_within is not None:
            word = (
                f"tracks are made of the identities and the frames (--tracks-within {tracks_within}): "
                "whoever trains with them uses names"
            )
            splits = derive_tracks(reading.splits, tracks_within, (benchmark.distractor,))
            reading = replace(reading, splits=splits, notes=(*reading.notes, word))
        return _finish(plan, reading, {"source": str(source), **details, "tracks_within": tracks_within})


def prepare_synthetic(
    world: World, data_root: Path, *, name: str = SYNTHETIC, **how: Unpack[How]
) -> PreparationReport:
    """Render a synthetic world and prepare it; a world that was rendered before is not rendered again.

    Raises DatasetError where it cannot be written, InputError where the dials contradict each other.
    """
    check_free(name, data_root, SYNTHETIC)
    plan = Plan(name, SYNTHETIC, data_root, (world.height, world.width), distractor=0, **how)
    layout = FolderLayout(
        market1501.FOLDERS, market1501.PATTERN, market1501.EXAMPLES, cameras=None, unknown=("train",)
    )
    with places.alone(plan.folder):
        target = plan.folder / f"rendered-{zlib.crc32(world.to_json().encode()):08x}"
        if not target.is_dir():
            render(target, world, progress=plan.progress, workers=plan.workers)
        reading = layout.read(target)
        known = tracks_of(world)

        def timed(record: ImageRecord) -> ImageRecord:
            track, frame = known.get(record.path, (NO_TRACK, NO_TRACK))
            return replace(record, track=track, frame=frame)

        splits = {split: tuple(map(timed, records)) for split, records in reading.splits.items()}
        return _finish(plan, replace(reading, splits=splits), {"world": asdict(world)})


@dataclass(frozen=True)
class OwnCrops:
    """How own crops are to be read: exactly one of ``pattern`` and ``table`` (a CSV file).

    ``seed`` draws queries and, where every image has an identity, the ``test_share`` kept for evaluation.
    """

    pattern: str | None = None
    table: Path | None = None
    seed: int = 0
    test_share: float = 0.5

    def __post_init__(self) -> None:
        """Raise UsageError where the fields contradict each other."""
        if (self.pattern is None) == (self.table is None):
            raise UsageError("Give either --pattern (what the paths say) or --csv (a file with path,camera).")
        if self.pattern is not None:
            own_crops.compile_pattern(self.pattern)

    def read(self, source: Path | None) -> Reading:
        """Read the records below ``source`` (with a table: the folder of its paths). Writes nothing.

        Raises DatasetError where nothing fits, UsageError where the source is missing.
        """
        return own_crops.assemble(*self.rows(source), seed=self.seed, test_share=self.test_share)

    def rows(self, source: Path | None) -> tuple[Path, list[Row], list[Unread]]:
        """Read as ``read`` does: the root, the rows, what does not fit."""
        if self.table is not None:
            return own_crops.read_csv(self.table, source)
        if source is None:
            raise UsageError("--pattern needs --source: the folder of the crops.")
        return source.resolve(), *own_crops.read_pattern(source.resolve(), str(self.pattern))


def prepare_folder(
    name: str,
    source: Path | None,
    data_root: Path,
    crops: OwnCrops,
    *,
    size: Size = (256, 128),
    expansion: int = EXPANSION,
    **how: Unpack[How],
) -> PreparationReport:
    """Prepare own crops (a folder or an archive of them, which may hold ``expansion`` times its size).

    Raises UsageError on a bad name or pattern, DatasetError where nothing fits or too much is unreadable.
    """
    check_free(name, data_root, FOLDER)
    plan = Plan(name, FOLDER, data_root, size, **how)
    with places.alone(plan.folder):
        if source is None:
            reading = crops.read(None)
        else:
            reading = places.read(source, plan.folder, crops.read, expansion, plan.progress)
        details = {
            "source": str(source or ""),
            **asdict(crops),
            "table": str(crops.table or ""),
            "identities": list(reading.identities),
        }
        return _finish(plan, reading, details)


def add_to_folder(
    name: str,
    source: Path,
    data_root: Path,
    *,
    pattern: str | None = None,
    table: Path | None = None,
    size: Size | None = None,
    **how: Unpack[How],
) -> PreparationReport:
    """Add the crops below ``source`` to a prepared data set of one's own (see ``datasets.addition``).

    They are read by ``pattern``, or by a CSV file, ``table``; without either as those before. Only the new
    images are decoded. The index is replaced at the end, as a whole. ``size`` and store: as before if left
    out.

    Raises:
        UsageError: the data set is none of own crops, or nothing says how paths read.
        DatasetError: it is not prepared, nothing is new, too much is unreadable, or what was there is not
            any more.
    """
    index.head(data_root, name)  # else a folder would be made, to be alone in
    with places.alone(data_root / name):  # nobody adds between reading and writing
        known, dataset = index.head(data_root, name), datasets.load(name, data_root)
        details = known["details"]
        if dataset.layout != FOLDER:
            raise UsageError(
                f"{name!r} is a data set {dataset.layout}; --add is for own crops: prepare folder."
            )
        if not source.is_dir():
            raise UsageError(f"--add {source} is no folder. Unpack an archive first.")
        pattern = pattern if pattern or table else details.get("pattern")
        if pattern is None and table is None:
            raise UsageError(
                f"{name!r} was made of a CSV file: say how to read the new images, by --csv or --pattern."
            )
        size = size or tuple(details.get("size", (256, 128)))
        how.setdefault("store", details.get("store", "raw"))
        crops = OwnCrops(pattern, table)
        plan = Plan(name, FOLDER, data_root, size, **how)
        root, rows, unread = crops.rows(source)
        reading = extend(dataset, details.get("identities"), root, rows, unread)
        added = {"source": str(root), "pattern": pattern, "table": str(table or "")}
        details |= {"identities": list(reading.identities), "added": [*details.get("added", ()), added]}
        before = {part: len(split) for part, split in dataset.splits.items()}
        # Of identities they may not hold any more.
        lasting = [note for note in dataset.notes if not re.match("no identit|every image has an id", note)]
        return _finish(plan, reading, details, before, known["bad"], lasting)


def check_free(name: str, data_root: Path, layout: str) -> None:
    """Refuse what is no folder's name, or belongs to another kind of data set."""
    if not index.is_name(name):
        raise UsageError(
            f"{name!r} cannot be the name of a data set: a letter or digit, then letters, digits, '.', '_' "
            "and '-', at most 100 of them all."
        )
    # Rendered data alone is called as its layout is.
    reserved = {*datasets.available(), SYNTHETIC, FOLDER, PLUGIN} - ({layout} & {SYNTHETIC})
    if name in reserved:
        raise UsageError(f"{name!r} is the name of another kind of data set; choose one of your own.")
    if name in datasets.names(data_root) and index.head(data_root, name)["layout"] != layout:
        raise UsageError(
            f"{name!r} under {data_root} is a data set of another kind. Choose another name, or delete "
            f"{data_root / name / 'index.json'}."
        )


def _finish(
    plan: Plan,
    reading: Reading,
    details: Mapping[str, Any],
    before: Mapping[str, int] | None = None,
    bad_before: Sequence[Mapping[str, str]] = (),
    notes_before: Sequence[str] = (),
) -> PreparationReport:
    """Decode every image, leave out the bad ones, write the index. The steps that all data sets share.

    ``before``: how many images of each split were prepared already; ``bad_before``: what was left out then;
    ``notes_before``: what was told then.
    """
    there = before or {}
    splits: dict[str, Split] = {}
    bad: list[Unread] = []
    for name, records in reading.splits.items():
        whole = Split(reading.root, records)
        _, failed = build_pixels(
            whole,
            plan.folder / "pixels",
            *plan.size,
            name=name,
            store=plan.store,
            workers=plan.workers,
            progress=plan.progress,
        )
        if gone := [item for item in failed if item.row < there.get(name, 0)]:
            raise DatasetError(
                f"{len(gone)} images that {plan.name!r} has in its {name} split cannot be read any more "
                f"({gone[0].path}: {gone[0].reason}). Put them back, or prepare all images anew; nothing was "
                "added."
            )
        _check_bad(plan, name, len(whole) - there.get(name, 0), failed)
        bad += [Unread(name, item.path, item.reason) for item in failed]
        lost = {item.row for item in failed}
        splits[name] = whole.select([row for row in range(len(whole)) if row not in lost]) if lost else whole
    differences = _differences(plan.benchmark, reading)
    notice = plan.benchmark.notice if plan.benchmark else ""
    notes = (*filter(None, [notice]), *reading.notes, *_complaints(reading, bad))
    lasting = (*notes_before, *notes)
    dataset = Dataset(plan.name, reading.root, splits, reading.camera_names, lasting, plan.layout)
    written = index.write(
        plan.data_root,
        dataset,
        bad=[*bad_before, *(asdict(item) for item in bad)],
        details={**details, "size": list(plan.size), "store": plan.store},
        distractor=plan.distractor,
    )
    places.forget_others(plan.folder, reading.root)
    return PreparationReport(
        name=plan.name,
        root=reading.root,
        index=written,
        splits=tuple(_row(plan, name, split, reading, bad) for name, split in splits.items()),
        cameras=reading.camera_names,
        differences=differences,
        bad=tuple(bad),
        unread=reading.unread,
        notes=notes,
    )


def _check_bad(plan: Plan, split: str, images: int, failed: Sequence[BadImage]) -> None:
    examples = "; ".join(f"{item.path}: {item.reason}" for item in failed[:5])
    if failed and len(failed) == images:
        raise DatasetError(f"None of the {images} images of the {split} split can be read ({examples}).")
    if len(failed) > MAX_BAD_SHARE * images and not plan.allow_bad:
        raise DatasetError(
            f"{len(failed)} of {images} images of the {split} split cannot be read, more than "
            f"{MAX_BAD_SHARE:.0%} ({examples}). Get them again, or leave them out with --allow-bad."
        )


def _differences(benchmark: Benchmark | None, reading: Reading) -> tuple[str, ...]:
    """Say where the counts are not the published ones. Images that cannot be decoded count here too."""
    if benchmark is None:
        return ()
    found = []
    for name, expected in benchmark.counts.items():
        records = reading.splits.get(name, ())
        people = {record.identity for record in records} - {benchmark.distractor}
        tracks = {record.track for record in records} - {NO_TRACK}
        counts = [
            (len(records), " images", "", expected.images),
            (len(people), " identities", " of ", expected.identities),
            (len(tracks), " tracks", " in ", expected.tracks),
        ]
        known = [count for count in counts if count[3] is not None]
        if any(number != published for number, _, _, published in known):
            here = "".join(f"{link}{number:,}{word}" for number, word, link, _ in known)
            there = "".join(f"{link}{published:,}" for _, _, link, published in known)
            first = known[0][2]  # a link joins to what is before
            found.append(f"{name}: {here.removeprefix(first)}; published are {there.removeprefix(first)}")
    return tuple(found)


def _complaints(reading: Reading, bad: Sequence[Unread]) -> list[str]:
    found = []
    if reading.unread:
        names = first_few([f"{item.path} ({item.reason})" for item in reading.unread], 3)
        found.append(f"{counted(len(reading.unread), 'file')} passed over{names}")
    if bad:
        found.append(f"{counted(len(bad), 'image')} cannot be read: left out; index.json names them")
    return found


def _row(plan: Plan, name: str, split: Split, reading: Reading, bad: Sequence[Unread]) -> SplitReport:
    published = plan.benchmark.counts.get(name) if plan.benchmark else None
    distractors = 0 if plan.distractor is None else int((split.identities == plan.distractor).sum())
    return SplitReport(
        split=name,
        **{"tracks": 0, **index.counts(split, plan.distractor)},
        published_images=published.images if published else None,
        published_identities=published.identities if published else None,
        ignored=reading.ignored.get(name, 0),
        distractors=distractors,
        bad=sum(item.split == name for item in bad),
    )


@dataclass(frozen=True)
class VerificationReport:
    """What a second reading of everything found: images and pixel stores at fault."""

    name: str
    images: int
    bad: tuple[Unread, ...]
    stores: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing was at fault."""
        return not (self.bad or self.stores)


def verify(
    name: str, data_root: Path, *, workers: int | None = None, progress: Progress | None = None
) -> VerificationReport:
    """Decode every image of a prepared data set again, and check its pixel stores against their checksums.

    Damaged stores are deleted, to be built again when they are needed. Images that can be read, but are not
    the files that were prepared, are at fault too. Raises DatasetError where the data set is not prepared.
    """
    dataset, details = datasets.load(name, data_root), index.head(data_root, name)["details"]
    folder, changed = data_root / name / "pixels", []
    bad: list[Unread] = []
    for split_name, split in dataset.splits.items():
        failed = check_images(split, name=split_name, workers=workers, progress=progress)
        bad += [Unread(split_name, item.path, item.reason) for item in failed]
        how = {"name": split_name, "store": details.get("store", "raw")}
        if not failed and other_files(split, folder, *details.get("size", (256, 128)), **how):
            changed.append(f"{split_name}: files have changed since it was prepared (their sizes or times)")
    stores = (*verify_pixels(folder, progress=progress), *changed)
    return VerificationReport(name, sum(map(len, dataset.splits.values())), tuple(bad), stores)
