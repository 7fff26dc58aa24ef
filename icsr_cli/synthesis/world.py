"""All dials of a synthetic data set: how large it is and what makes it hard."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, Final, TypeAlias, get_type_hints

from pydantic import BaseModel, Field, ValidationError, create_model

from icsr_cli.errors import InputError

#: Raised whenever the same dials no longer give the same pixels.
PIXEL_VERSION: Final = 1
MAX_PEOPLE: Final = 9999
MAX_CAMERAS: Final = 99

_People: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=MAX_PEOPLE)]
_Files: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=10_000_000)]
_PerPerson: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=10_000)]
_Cameras: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=MAX_CAMERAS)]
#: 0 is off; more is harder.
_Strength: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=4, allow_inf_nan=False)]
_Share: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


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

    train_identities: _People = 100
    test_identities: _People = 100
    cameras: _Cameras = 5
    cameras_per_person: tuple[_Cameras, _Cameras] = (2, 5)
    images: tuple[_PerPerson, _PerPerson] = (2, 6)
    train_images: _Files | None = None
    test_images: _Files | None = None
    queries: _Files | None = None
    distractors: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 100
    junk: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 50
    height: Annotated[int, Field(strict=True, ge=16, le=1024)] = 64
    width: Annotated[int, Field(strict=True, ge=8, le=1024)] = 32
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    background: _Strength = 0.6
    camera_shift: _Strength = 1.0
    blur: _Strength = 0.5
    noise: _Strength = 0.4
    resolution: _Strength = 0.4
    crop_jitter: _Strength = 1.5
    occlusion: _Share = 0.05
    view_spread: _Share = 0.1
    garment_similarity: _Share = 0.95
    second_pass: _Share = 0.0
    separation: _Share = 0.0
    clutter: _Share = 0.0
    lookalikes: _Share = 0.0
    uneven: _Share = 0.0
    impure_tracks: _Share = 0.0

    def __post_init__(self) -> None:
        """Check every dial; all faults come in one message (:class:`InputError`)."""
        for name in ("cameras_per_person", "images"):
            value = getattr(self, name)
            if isinstance(value, list):  # from JSON or YAML
                object.__setattr__(self, name, tuple(value))
        if faults := _faults(self):
            raise InputError("this synthetic world cannot be: " + "; ".join(faults))

    @classmethod
    def preset(cls, name: str, **dials: Any) -> World:
        """Give a named world (of ``PRESETS``: ``default``, ``hard``, ``city``, ...), some dials changed.

        Raises :class:`InputError` on an unknown name or dial.
        """
        if name not in PRESETS:
            raise InputError(f"unknown synthetic world {name!r}; choose from {', '.join(PRESETS)}")
        known = {dial.name for dial in fields(cls)}
        if unknown := sorted(set(dials) - known):
            raise InputError(
                f"unknown dial {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}"
            )
        return replace(cls(**PRESETS[name]), **dials)

    def to_json(self) -> str:
        """Give the text of ``world.json``."""
        return json.dumps({"pixel_version": PIXEL_VERSION, "world": asdict(self)}, indent=2) + "\n"


_HARD: Final[dict[str, Any]] = {
    "background": 1.2,
    "camera_shift": 1.8,
    "blur": 1.0,
    "noise": 1.0,
    "resolution": 1.0,
    "view_spread": 0.35,
}
_CITY: Final[dict[str, Any]] = {
    **_HARD,
    "train_identities": 300,
    "test_identities": 200,
    "cameras": 8,
    "view_spread": 0.6,
    "second_pass": 0.3,
    "occlusion": 0.15,
    "garment_similarity": 1.0,
    "background": 1.5,
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
    "separate": {
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
    },
    "metro": {
        **_CITY,
        "train_identities": 500,
        "test_identities": 700,
        "cameras": 12,
        "cameras_per_person": (2, 4),
        "images": (2, 5),
        "distractors": 200,
        "background": 2.2,
        "camera_shift": 2.6,
        "view_spread": 0.7,
        "clutter": 0.15,
        "lookalikes": 0.7,
        "uneven": 0.9,
    },
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


@cache
def _limits() -> type[BaseModel]:
    """Give a model that holds every dial to what stands beside it in :class:`World`."""
    dials = {name: (kind, ...) for name, kind in get_type_hints(World, include_extras=True).items()}
    model: type[BaseModel] = create_model("Dials", **dials)  # type: ignore[call-overload]
    return model


def _faults(world: World) -> list[str]:
    """Say of each dial what is wrong with it; of their sums, where each is right by itself."""
    try:
        _limits()(**vars(world))
    except ValidationError as error:
        said = {str(fault["loc"][0]): fault["msg"].lower() for fault in error.errors()}
        return [f"{name} is {getattr(world, name)!r}: {why}" for name, why in said.items()]
    faults = [
        f"{name} is {pair!r}, expected (from, to) with from <= to"
        for name, pair in (("cameras_per_person", world.cameras_per_person), ("images", world.images))
        if pair[0] > pair[1]
    ]
    people = world.train_identities + world.test_identities
    if people > MAX_PEOPLE:
        faults.append(f"more than {MAX_PEOPLE} people do not fit the names' four digits")
    if people == 0:
        faults.append("there is nobody in it (train_identities and test_identities are 0)")
    return faults
