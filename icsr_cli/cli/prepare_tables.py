"""What ``icsr prepare`` shows: the list, the report, the check, the preview."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icsr_cli.cli import options
from icsr_cli.cli.console import heading, make_progress, print_json, print_records, print_table, say
from icsr_cli.errors import DatasetError, UsageError, counted, room

if TYPE_CHECKING:
    from icsr_cli.progress import Progress
    from icsr_cli.recipes.preparation import OwnCrops, PreparationReport


def show_list(data_root: Path, as_json: bool) -> None:
    """Show what is prepared and what could be."""
    from icsr_cli.datasets.overview import overview

    found = overview(data_root)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            item.name,
            item.prepared[:10],
            *(item.splits.get(split, {}).get("images", "") or "" for split in ("train", "query", "gallery")),
            item.cameras,
            room(item.image_bytes),
            room(item.pixel_bytes) if item.pixel_bytes else "",
        )
        for item in found
        if item.prepared
    ]
    columns = ("data set", "prepared", "train", "query", "gallery", "cameras", "images", "pixels")
    if rows:
        print_table(f"Data sets under {data_root}", columns, rows)
    for item in found:
        if item.prepared and item.about:
            say(f"{item.name}: {item.about}", whole=True)
    heading("Not prepared")
    for item in found:
        if not item.prepared:
            counts = " / ".join(f"{count:,}" for count in item.expected.values())
            say(f"- {item.name}: {counts + ' images. ' if counts else ''}{item.about}")


def show_verification(name: str, data_root: Path, workers: int | None, as_json: bool, quiet: bool) -> None:
    """Read everything again and show what is at fault. Raises DatasetError where anything is."""
    from dataclasses import asdict

    from icsr_cli.recipes.preparation import verify

    report = verify(name, data_root, workers=workers, progress=make_progress(quiet, as_json))
    if as_json:
        print_json(asdict(report) | {"sound": report.sound})
    elif report.sound:
        read = counted(report.images, "image")
        typer.echo(f"{name}: {read} read again, every pixel store checked: all sound")
    else:
        rows = [(item.path, item.reason) for item in report.bad] + [
            fault.split(": ", 1) for fault in report.stores
        ]
        print_table(f"{name}: at fault", ("what", "why"), rows)
    if not report.sound:
        raise DatasetError(
            f"At fault in {name!r}: {counted(len(report.bad), 'image')}, "
            f"{counted(len(report.stores), 'pixel store')}. Put the images back or prepare the "
            "data set again; a damaged store is built again by itself."
        )


def show_report(report: PreparationReport, progress: Progress, data_root: Path, as_json: bool) -> None:
    """Show the table of a preparation, and on standard error what the user should know of it and do next."""
    if as_json:
        print_json(report)
    else:
        names = ("split", "images", "identities", "cameras", "tracks", "distractors")
        fields = {name: name for name in names} | {"junk left out": "ignored", "unreadable": "bad"}
        fields |= {f"published {name}": f"published_{name}" for name in ("images", "identities")}
        columns = {title: [getattr(row, field) for row in report.splits] for title, field in fields.items()}
        columns = {title: values for title, values in columns.items() if any(values)}
        print_table(f"{report.name}: {report.root}", list(columns), list(zip(*columns.values(), strict=True)))
    for note in report.notes:
        progress.warn(note)
    for item in report.bad[:20]:
        progress.warn(f"unreadable, left out: {item.path}: {item.reason}")
    for difference in report.differences:
        progress.warn(f"Not the published counts. {difference}")
    progress.note(f"Next: {options.typed('train', '-d', report.name, data_root=data_root)}")


def show_preview(source: Path | None, crops: OwnCrops, as_json: bool) -> None:
    """Show what own crops would be read as: counts, five examples, what does not fit."""
    from icsr_cli.datasets.index import counts
    from icsr_cli.types import Split

    if source is not None and not source.is_dir():
        raise UsageError(f"--dry-run reads a folder; --source {source} is none. Unpack an archive first.")
    reading = crops.read(source)
    table = {name: counts(Split(reading.root, records)) for name, records in reading.splits.items()}
    records = [record for split in reading.splits.values() for record in split]
    when = [name for name in ("track", "frame") if any(getattr(record, name) >= 0 for record in records)]
    examples = []
    for record in records[:: max(1, len(records) // 5)][:5]:
        numbers = [getattr(record, name) for name in ("identity", *when)]
        known: list[int | str] = [number if number >= 0 else "unknown" for number in numbers]
        if reading.identities and record.identity >= 0:
            known[0] = reading.identities[record.identity]
        examples.append((record.path, reading.camera_names[record.camera], *known))
    misfits = [(item.path, item.reason) for item in reading.unread]
    if as_json:
        print_json(
            {"splits": table, "cameras": reading.camera_names, "examples": examples, "unread": misfits}
        )
        return
    print_records("Would be read", [{"split": name, **found} for name, found in table.items()])
    print_table("Examples", ("path", "camera", "id", *when), examples)
    print_table("Cameras", ("number", "name"), list(enumerate(reading.camera_names))[:30])
    if misfits:
        print_table(f"{len(misfits)} files do not fit", ("path", "why"), misfits[:10])
    if reading.notes:
        print_table("", ("notes",), [(note,) for note in reading.notes])
