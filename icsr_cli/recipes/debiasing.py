"""Features without what their cameras add: by the statistics of the images at hand, or stored ones."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from icsr_cli.distances import CameraStatistics, normalise_cameras
from icsr_cli.distances.normalisation import Normalisation
from icsr_cli.errors import ModelError, UsageError, counted, some
from icsr_cli.files import parse_json
from icsr_cli.models import read_metadata, size_of
from icsr_cli.progress import Progress
from icsr_cli.types import Dataset, FloatArray, IntArray, Size

#: What the metadata of a model file call the statistics.
KEY: Final = "camera_statistics"


@dataclass(frozen=True)
class StoredStatistics:
    """Statistics of the features of the training images under each camera, by name, and their use.

    ``statistics`` has a row for each of ``cameras``, and a last one, of all images, for any other.
    ``dataset`` is where the images are from, ``images`` their number.
    """

    mode: Literal["centre", "full"]
    dataset: str
    images: int
    cameras: tuple[str, ...]
    statistics: CameraStatistics

    @classmethod
    def of(
        cls, features: Any, cameras: IntArray, dataset: Dataset, mode: Literal["centre", "full"]
    ) -> StoredStatistics:
        """Measure them on float (n, d) of images of ``dataset`` under its cameras int (n,)."""
        numbers, rows = np.unique(cameras, return_inverse=True)
        names = tuple(dataset.camera_names[number] for number in numbers)
        return cls(mode, dataset.name, len(features), names, CameraStatistics.of(features, rows))

    @classmethod
    def read(cls, weights: Path, size: Size) -> StoredStatistics:
        """Read them from the header of a file of weights, for images of ``size`` (height, width).

        Raises:
            UsageError: it holds none, or those of features of images of another size.
            ModelError: what it holds is damaged.
        """
        header = read_metadata(weights)
        if KEY not in header:
            raise UsageError(
                f"--debias stored: {weights} holds no statistics of cameras. Export the network with them "
                "(icsr export --debias full --format safetensors), or take those of the images at hand "
                "(--debias full)."
            )
        known = size_of(header) or size
        if known != size:
            raise UsageError(
                f"--debias stored: {weights} holds statistics of images of {known[0]} x {known[1]}, and they "
                f"are looked at at {size[0]} x {size[1]}. Leave that size out, or take the statistics of the "
                "images at hand (--debias full)."
            )
        try:
            return cls._of_text(header[KEY], int(header["features"]))
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ModelError(
                f"{weights}: its statistics of cameras are damaged ({error!r}). Export it again."
            ) from error

    @classmethod
    def _of_text(cls, text: str, dim: int) -> StoredStatistics:
        about = parse_json(text)
        mode, cameras = about["mode"], tuple(map(str, about["cameras"]))
        if mode not in ("centre", "full"):
            raise ValueError(f"mode {mode!r}")
        tables = [
            np.frombuffer(base64.b64decode(about[name], validate=True), "<f4").reshape(len(cameras) + 1, dim)
            for name in ("mean", "spread")
        ]
        if not np.isfinite(tables).all():
            raise ValueError("not finite")
        mean, spread = (table.astype(np.float32) for table in tables)
        return cls(mode, str(about["dataset"]), int(about["images"]), cameras, CameraStatistics(mean, spread))

    def as_text(self) -> str:
        """Give JSON: mean and spread are little-endian float32 (c + 1, d), by rows, in base64."""
        return json.dumps(
            {
                "mode": self.mode,
                "dataset": self.dataset,
                "images": self.images,
                "cameras": self.cameras,
                "mean": _packed(self.statistics.mean),
                "spread": _packed(self.statistics.spread),
            }
        )

    def check_cameras(self, cameras: Iterable[str | None], way: str) -> None:
        """Raise UsageError where not one camera is known; ``way`` is how the same names come about."""
        here = {name for name in cameras if name is not None}
        if here.isdisjoint(self.cameras):
            raise UsageError(
                f"--debias stored: the file knows {some(self.cameras)} of {self.dataset!r}, and none of the "
                f"cameras here ({some(sorted(here)) or 'no name'}). {way}, or take "
                f"the statistics of the images at hand: --debias {self.mode}."
            )

    def apply(self, features: Any, cameras: Sequence[str | None], progress: Progress) -> Any:
        """Normalise float (n, d) under cameras of these names: unit float32 (n, d), in the kind they came.

        An image of another camera, or of none, is held against all training images; cameras that are not
        known are warned of. Raises UsageError where not one camera is known.
        """
        number: dict[str | None, int] = {name: row for row, name in enumerate(self.cameras)}
        rows = np.array([number.get(name, len(number)) for name in cameras], dtype=np.int64)
        strange = sorted({name for name in cameras if name is not None} - number.keys())
        self.check_cameras(cameras, "Let --pattern read the same names, or prepare the data set with them")
        if strange:
            progress.warn(
                f"The file has no statistics of the cameras {some(strange)}: their images are held against "
                "all training images."
            )
        return self.statistics.apply(features, rows, self.mode)


#: How features are debiased: by the statistics of the images at hand, or by stored ones.
Debiasing: TypeAlias = "Normalisation | StoredStatistics"


def debiasing(word: Literal["none", "centre", "full", "stored"], weights: Path, size: Size) -> Debiasing:
    """Give what ``--debias`` means: ``stored`` reads the statistics in ``weights``, of images of ``size``."""
    return StoredStatistics.read(weights, size) if word == "stored" else word


def debiased(
    features: Any, cameras: IntArray, names: Sequence[str], how: Debiasing, progress: Progress
) -> Any:
    """Debias float (n, d) under cameras int (n,), whose names are ``names``; numpy or torch as it came.

    Raises UsageError where nothing is left of them, or stored statistics are of none of the cameras.
    """
    if isinstance(how, StoredStatistics):
        return how.apply(features, [names[camera] for camera in cameras], progress)
    found = normalise_cameras(features, cameras, how)
    refuse_nothing(found, how)
    return found


def refuse_nothing(found: Any, how: Normalisation) -> None:
    """Raise UsageError where debiased features (n, d) are all 0: every one of them was the mean of all."""
    if not (found != 0).any():
        raise UsageError(
            f"--debias {how} leaves nothing of {counted(len(found), 'image')}: their features are the mean "
            "of all. Take more images that differ, or leave --debias out."
        )


def _packed(table: FloatArray) -> str:
    return base64.b64encode(table.astype("<f4").tobytes()).decode("ascii")
