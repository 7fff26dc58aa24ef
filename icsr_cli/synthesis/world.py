"""All dials of a synthetic data set: how large it is and what makes it hard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from icsr_cli.errors import InputError
from icsr_cli.files import read_json

#: Raised whenever the same dials no longer give the same pixels.
PIXEL_VERSION: Final = 1
#: Strengths: 0 is off; more is harder.
STRENGTHS: Final = ("background", "camera_shift", "blur", "noise", "resolution", "crop_jitter")
#: Shares: from 0 to 1.
SHARES: Final = (
    "occlusion",
    "view_spread",
    "garment_similarity",
    "second_pass",
    "separation",
    "clutter",
    "lookalikes",
    "uneven",
    "impure_tracks",
)
MAX_STRENGTH: Final = 4.0
MAX_PEOPLE: Final = 9999
MAX_CAMERAS: Final = 99


@dataclass(frozen=True)
class World:
    """A synthetic world. Equal worlds give equal pixels.

    Size
        ``train_identities`` and ``test_identities``: people, who are never the same.
        ``cameras``: how many; the first eight are a fixed table, the others follow from their number.
        ``cameras_per_person``: from and to, how many of the cameras see one person.
        ``images``: from and to, images per person and camera (in the test half at least 2).
        ``train_images``, ``test_images``: exact totals (test: query and gallery people together), or
        None for whatever ``images`` gives. ``queries``: exact number of queries, one per test person
        and camera, or None.
        ``distractors`` (identity 0000) and ``junk`` (identity -1): files on top, in the gallery folder.
        ``height``, ``width``: pixels. ``seed``: people, their passes and the noise; never the cameras.

    Difficulty, as strengths (0 off, at most 4)
        ``background``: contrast of the cameras' backgrounds. ``camera_shift``: white balance, exposure
        and gamma. ``blur``, ``noise``, ``resolution`` (loss of it), ``crop_jitter``: as they say.

    Difficulty, as shares (0 to 1)
        ``occlusion``: passes in which the camera's furniture stands in front of the person.
        ``view_spread``: passes seen from any side, also from behind; the others are seen from the front,
        turned by up to this many quarter turns.
        ``garment_similarity``: 0 every garment has its own colour, 1 all share a small palette.
        ``second_pass``: people who go through a camera twice, in different directions.

    What real crowds and detectors add, as shares (0 to 1; 0 is off)
        ``separation``: everybody lives at one camera and dresses as people do there, by this share; and
        half this share of the training people is seen by no other camera (test people walk as always).
        ``clutter``: wrong detections of identity -1 in the training folder, for each image of a person:
        background, half persons, two persons in one.
        ``lookalikes``: people with a double, who differs in two traits only.
        ``uneven``: how much fewer people the quieter cameras see.
        ``impure_tracks``: training tracks in which the tracker jumped to another person.
    """

    train_identities: int = 100
    test_identities: int = 100
    cameras: int = 5
    cameras_per_person: tuple[int, int] = (2, 5)
    images: tuple[int, int] = (2, 6)
    train_images: int | None = None
    test_images: int | None = None
    queries: int | None = None
    distractors: int = 100
    junk: int = 50
    height: int = 64
    width: int = 32
    seed: int = 0
    background: float = 0.6
    camera_shift: float = 1.0
    blur: float = 0.5
    noise: float = 0.4
    resolution: float = 0.4
    crop_jitter: float = 1.5
    occlusion: float = 0.05
    view_spread: float = 0.1
    garment_similarity: float = 0.95
    second_pass: float = 0.0
    separation: float = 0.0
    clutter: float = 0.0
    lookalikes: float = 0.0
    uneven: float = 0.0
    impure_tracks: float = 0.0

    def __post_init__(self) -> None:
        """Check every dial; all faults come in one message (:class:`InputError`)."""
        for name in ("cameras_per_person", "images"):
            value = getattr(self, name)
            if isinstance(value, list):  # from JSON or YAML
                object.__setattr__(self, name, tuple(value))
        faults = [*_size_faults(self), *_difficulty_faults(self)]
        if faults:
            raise InputError("this synthetic world cannot be: " + "; ".join(faults))

    @classmethod
    def preset(cls, name: str, **dials: Any) -> World:
        """Give a named world (of ``PRESETS``: ``default``, ``hard``, ``city``, ...), some dials changed.

        Raises :class:`InputError` on an unknown name or dial.
        """
        if name not in PRESETS:
            raise InputError(f"unknown synthetic world {name!r}; choose from {', '.join(PRESETS)}")
        _refuse_unknown(dials)
        return replace(cls(**PRESETS[name]), **dials)

    @classmethod
    def from_mapping(cls, dials: Mapping[str, Any]) -> World:
        """Build a world from plain values (JSON, YAML). Raises :class:`InputError` on unknown dials."""
        _refuse_unknown(dials)
        return cls(**dials)

    @classmethod
    def load(cls, path: Path) -> World:
        """Read the ``world.json`` that :func:`icsr_cli.synthesis.render` wrote.

        Raises :class:`InputError` where it is missing, damaged or of another pixel version.
        """
        try:
            content = read_json(path)
            version, dials = content["pixel_version"], content["world"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not the description of a synthetic world: {error}") from error
        if version != PIXEL_VERSION:
            raise InputError(
                f"{path} is of pixel version {version}, this icsr draws version {PIXEL_VERSION}; "
                "render the data set again"
            )
        return cls.from_mapping(dials)

    def to_json(self) -> str:
        """Give the text of ``world.json``."""
        return json.dumps({"pixel_version": PIXEL_VERSION, "world": asdict(self)}, indent=2) + "\n"


_HARD: Final[dict[str, Any]] = {
    "background": 1.2,
    "camera_shift": 1.8,
    "blur": 1.0,
    "noise": 1.0,
    "resolution": 1.0,
    "crop_jitter": 1.5,
    "view_spread": 0.35,
}
_CITY: Final[dict[str, Any]] = {
    **_HARD,
    "train_identities": 300,
    "test_identities": 200,
    "cameras": 8,
    "cameras_per_person": (2, 5),
    "view_spread": 0.6,
    "second_pass": 0.3,
    "occlusion": 0.15,
    "garment_similarity": 1.0,
    "background": 1.5,
}
_SEPARATE: Final[dict[str, Any]] = {
    "train_identities": 200,
    "cameras": 6,
    "cameras_per_person": (2, 3),
    "background": 0.3,
    "camera_shift": 0.0,
    "blur": 0.25,
    "noise": 0.2,
    "resolution": 0.2,
    "view_spread": 0.25,
    "separation": 1.0,
}
_METRO: Final[dict[str, Any]] = {
    **_CITY,
    "train_identities": 500,
    "test_identities": 300,
    "cameras": 12,
    "cameras_per_person": (2, 4),
    "images": (2, 5),
    "distractors": 200,
    "background": 1.8,
    "camera_shift": 2.2,
    "view_spread": 0.7,
    "clutter": 0.15,
    "lookalikes": 0.5,
    "uneven": 0.9,
}
#: What differs from the defaults of :class:`World`.
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "hard": _HARD,
    "city": _CITY,
    "easy": {
        "background": 0.3,
        "camera_shift": 0.5,
        "blur": 0.25,
        "noise": 0.2,
        "resolution": 0.2,
        "crop_jitter": 0.7,
        "occlusion": 0.0,
        "view_spread": 0.05,
        "garment_similarity": 0.8,
    },
    "separate": _SEPARATE,
    "metro": _METRO,
    "market1501": {
        "train_identities": 751,
        "test_identities": 750,
        "cameras": 6,
        "cameras_per_person": (2, 6),
        "images": (1, 10),
        "train_images": 12_936,
        "test_images": 16_483,
        "queries": 3_368,
        "distractors": 2_798,
        "junk": 3_819,
        "height": 128,
        "width": 64,
    },
}


def _refuse_unknown(dials: Mapping[str, Any]) -> None:
    known = {dial.name for dial in fields(World)}
    unknown = sorted(set(dials) - known)
    if unknown:
        raise InputError(
            f"unknown dial {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}"
        )


def _is_int(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _size_faults(world: World) -> list[str]:
    limits = {
        "train_identities": (0, MAX_PEOPLE),
        "test_identities": (0, MAX_PEOPLE),
        "cameras": (1, MAX_CAMERAS),
        "distractors": (0, 1_000_000),
        "junk": (0, 1_000_000),
        "height": (16, 1024),
        "width": (8, 1024),
        "seed": (0, 2**63 - 1),
    }
    faults = [
        f"{name} is {getattr(world, name)!r}, expected a whole number from {low} to {high}"
        for name, (low, high) in limits.items()
        if not _is_int(getattr(world, name), low, high)
    ]
    for name in ("train_images", "test_images", "queries"):
        value = getattr(world, name)
        if value is not None and not _is_int(value, 0, 10_000_000):
            faults.append(f"{name} is {value!r}, expected None or a whole number of 0 or more")
    for name, high in (("cameras_per_person", MAX_CAMERAS), ("images", 10_000)):
        value = getattr(world, name)
        pair = isinstance(value, tuple) and len(value) == 2 and all(_is_int(v, 1, high) for v in value)
        if not pair or value[0] > value[1]:
            faults.append(f"{name} is {value!r}, expected (from, to) with 1 <= from <= to <= {high}")
    if not faults and world.train_identities + world.test_identities > MAX_PEOPLE:
        faults.append(f"more than {MAX_PEOPLE} people do not fit the names' four digits")
    if not faults and world.train_identities + world.test_identities == 0:
        faults.append("there is nobody in it (train_identities and test_identities are 0)")
    return faults


def _difficulty_faults(world: World) -> list[str]:
    limits = [(name, MAX_STRENGTH) for name in STRENGTHS] + [(name, 1.0) for name in SHARES]
    faults = []
    for name, high in limits:
        value = getattr(world, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 <= value <= high:
            faults.append(f"{name} is {value!r}, expected a number from 0 to {high:g}")
    return faults
