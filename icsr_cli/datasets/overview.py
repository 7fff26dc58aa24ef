"""What is prepared under a data root, and what could be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from icsr_cli import datasets
from icsr_cli.datasets import index
from icsr_cli.errors import DatasetError


@dataclass(frozen=True)
class Overview:
    """One data set for ``prepare --list``; ``splits`` is empty and the sizes 0 where it is not prepared."""

    name: str
    prepared: str | None
    splits: Mapping[str, Mapping[str, int]]
    cameras: int
    image_bytes: int
    pixel_bytes: int
    expected: Mapping[str, int]
    about: str


def overview(data_root: Path) -> tuple[Overview, ...]:
    """List what is prepared under the data root, then what could be."""
    there = datasets.names(data_root)
    known = [*datasets.available(), "synthetic"]
    return (
        *(_prepared_overview(name, data_root) for name in there),
        *(_possible_overview(name) for name in known if name not in there),
    )


def _prepared_overview(name: str, data_root: Path) -> Overview:
    try:
        head, dataset = index.head(data_root, name), datasets.load(name, data_root)
    except (DatasetError, KeyError) as error:
        return Overview(name, None, {}, 0, 0, 0, {}, f"damaged: {error}")
    files = {f"{split.root}/{record.path}" for split in dataset.splits.values() for record in split.records}
    return Overview(
        name=name,
        prepared=head["prepared"],
        splits=head["splits"],
        cameras=dataset.n_cameras,
        image_bytes=sum(_size(Path(path)) for path in files),
        pixel_bytes=sum(
            _size(path)
            for kind in ("*.npy*", "*.jpegs", "*.jpegs.part")
            for path in (data_root / name / "pixels").glob(kind)
        ),
        expected=_published_images(name),
        about=f"{dataset.layout}: {dataset.root}",
    )


def _possible_overview(name: str) -> Overview:
    about = (
        datasets.benchmark(name).ask if name in datasets.available() else "icsr prepare synthetic renders it"
    )
    return Overview(name, None, {}, 0, 0, 0, _published_images(name), about)


def _published_images(name: str) -> dict[str, int]:
    if name not in datasets.available():
        return {}
    counts = datasets.benchmark(name).counts
    return {split: count.images for split, count in counts.items() if count.images is not None}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
