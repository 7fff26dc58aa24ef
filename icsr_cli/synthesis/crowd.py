"""What people have in common: the look of the camera they live at, and doubles who differ in little.

Where the dials are 0 nothing of this touches anybody.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from icsr_cli.synthesis.people import LOWERS, PATTERNS
from icsr_cli.types import FloatArray, IntArray, Records

#: How often somebody keeps to a habit of the place (a pattern, a length, a bag), at separation 1.
_HABIT: Final = 0.7
#: Weight of the quietest camera, at unevenness 1.
_QUIET: Final = 0.02
_GOLDEN: Final = 0.618034
#: Traits by which two doubles can differ, and in how many of them they do.
_TRAITS: Final = ("pattern", "lower", "bag", "coat", "hair", "shoes")
_DIFFERENCES: Final = 2


@dataclass(frozen=True)
class Look:
    """How people dress at one place: four colours, and habits that most of them share."""

    clothes: tuple[tuple[float, float, float], ...]
    patterns: tuple[int, ...]
    sleeve: float
    coat: float
    lowers: tuple[int, ...]
    hat: bool
    backpack: bool


_LOOKS: Final = (
    Look(  # winter coats
        ((0.10, 0.11, 0.16), (0.30, 0.22, 0.16), (0.26, 0.27, 0.30), (0.16, 0.24, 0.20)),
        (PATTERNS.index("plain"), PATTERNS.index("open")), 1.0, 0.17, (0, 1), True, False,
    ),
    Look(  # bright uniforms
        ((0.86, 0.46, 0.10), (0.80, 0.74, 0.18), (0.84, 0.60, 0.14), (0.20, 0.26, 0.44)),
        (PATTERNS.index("band"), PATTERNS.index("across")), 1.0, 0.0, (0, 1), True, False,
    ),
    Look(  # summer
        ((0.86, 0.84, 0.80), (0.56, 0.72, 0.86), (0.86, 0.60, 0.64), (0.74, 0.84, 0.62)),
        (PATTERNS.index("print"), PATTERNS.index("plain")), 0.35, 0.0, (2, 3), False, False,
    ),
    Look(  # a school
        ((0.44, 0.10, 0.16), (0.12, 0.34, 0.26), (0.60, 0.58, 0.54), (0.34, 0.10, 0.30)),
        (PATTERNS.index("checks"), PATTERNS.index("two-tone")), 1.0, 0.0, (3, 4), False, True,
    ),
    Look(  # offices
        ((0.22, 0.23, 0.26), (0.46, 0.48, 0.52), (0.68, 0.70, 0.74), (0.20, 0.24, 0.36)),
        (PATTERNS.index("open"), PATTERNS.index("along")), 1.0, 0.10, (0, 4), False, False,
    ),
    Look(  # sports
        ((0.12, 0.40, 0.80), (0.16, 0.66, 0.42), (0.78, 0.16, 0.22), (0.50, 0.24, 0.70)),
        (PATTERNS.index("two-tone"), PATTERNS.index("band")), 0.0, 0.0, (2, 2), False, True,
    ),
)  # fmt: skip


def look_of(camera: int) -> Look:
    """Give how people dress at ``camera``; like the cameras, it depends on the number alone."""
    if camera < len(_LOOKS):
        return _LOOKS[camera]
    random = np.random.Generator(np.random.PCG64([73, camera]))
    middle = 0.1 + 0.7 * random.random(3)
    clothes = np.clip(middle + 0.28 * (random.random((4, 3)) - 0.5), 0.06, 0.9)
    return Look(
        clothes=tuple((float(red), float(green), float(blue)) for red, green, blue in clothes),
        patterns=tuple(random.integers(0, len(PATTERNS), 2).tolist()),
        sleeve=(0.35, 1.0, 0.0)[random.integers(0, 3)],
        coat=(0.0, 0.1, 0.17)[random.integers(0, 3)],
        lowers=tuple(random.integers(0, len(LOWERS), 2).tolist()),
        hat=bool(random.random() < 0.4),
        backpack=bool(random.random() < 0.4),
    )


def popularity(cameras: int, uneven: float) -> FloatArray:
    """Give each camera's weight among the cameras that somebody is seen by, float64 (cameras,): 1 is even."""
    place = (_GOLDEN * np.arange(1, cameras + 1)) % 1
    weights: FloatArray = 1 - uneven * (1 - _QUIET) * (1 - place * place * place)
    return weights


def dress_by_home(
    people: Records, homes: IntArray, separation: float, similarity: float, random: np.random.Generator
) -> None:
    """Give ``people`` (p,) the look of the camera ``homes`` (p,) they live at, by the share ``separation``.

    Colours move towards the palette of the place, and habits of dress are taken over more often; in place.
    """
    if separation == 0:
        return
    count = len(people)
    looks = [look_of(camera) for camera in range(int(homes.max(initial=-1)) + 1)]
    palettes = np.array([look.clothes for look in looks])
    pick = np.zeros(count, np.int64)
    for name in ("upper_a", "upper_b", "lower_a", "lower_b", "shoes", "hat_colour", "bag_colour"):
        before, pick = pick, (random.random(count) * 4).astype(np.int64)
        if name in ("upper_b", "lower_b"):  # a second colour that can be told from the first
            pick = np.where(pick == before, (pick + 1) % 4, pick)
        own = 0.06 + 0.84 * random.random((count, 3))
        colour = similarity * palettes[homes, pick] + (1 - similarity) * own
        people[name] += separation * (colour - people[name])

    def habit(those: Any = True, **usual: Any) -> None:
        follows = (random.random(count) < _HABIT * separation) & those
        for name, values in usual.items():
            people[name] = np.where(follows, values, people[name])

    one_of_two = (random.random(count) * 2).astype(np.int64)
    habit(pattern=np.array([look.patterns for look in looks])[homes, one_of_two])
    habit(sleeve=np.array([look.sleeve for look in looks])[homes])
    habit(coat=np.array([look.coat for look in looks])[homes] * (0.7 + 0.5 * random.random(count)))
    habit(hat=np.array([look.hat for look in looks])[homes])
    kinds = np.array([look.lowers for look in looks])[homes, (random.random(count) * 2).astype(np.int64)]
    ends, skirts = np.array(LOWERS)[kinds].T
    habit(lower_end=ends, skirt=skirts)
    habit(np.array([look.backpack for look in looks])[homes], backpack=1, shoulder_bag=0)


def make_doubles(people: Records, homes: IntArray, share: float, random: np.random.Generator) -> None:
    """Turn ``share`` of ``people`` (p,) into pairs who differ in two traits only; in place.

    The two of a pair live at one camera where there are two to be found.
    """
    pairs = round(share * len(people) / 2)
    chosen = random.permutation(len(people))[: 2 * pairs]
    chosen = chosen[np.argsort(homes[chosen], kind="stable")]
    models, doubles = chosen[0::2], chosen[1::2]
    own = people[doubles].copy()
    people[doubles] = people[models]
    traits = random.random((pairs, len(_TRAITS))).argsort(axis=1)[:, :_DIFFERENCES]
    for number, trait in enumerate(_TRAITS):
        _differ(people, doubles[(traits == number).any(axis=1)], own[(traits == number).any(axis=1)], trait)


def _differ(people: Records, rows: IntArray, own: Records, trait: str) -> None:
    """Change one trait of the people at ``rows``, so that it can be seen; in place."""
    if trait == "pattern":
        people["pattern"][rows] = (people["pattern"][rows] + 1 + own["pattern"] % 7) % len(PATTERNS)
    elif trait == "lower":
        people["skirt"][rows] = 1 - people["skirt"][rows]
        people["lower_end"][rows] = np.where(people["lower_end"][rows] > 0.7, 0.44, 0.96)
    elif trait == "bag":
        without = (people["backpack"][rows] + people["shoulder_bag"][rows]) == 0
        people["backpack"][rows], people["shoulder_bag"][rows] = without, 0
        people["bag_colour"][rows] = own["bag_colour"]
    elif trait == "coat":
        people["coat"][rows] = np.where(people["coat"][rows] > 0.05, 0.0, 0.16)
    elif trait == "hair":
        people["hat"][rows] = 1 - people["hat"][rows]
        people["hair_length"][rows] = np.where(people["hair_length"][rows] > 0.03, 0.0, 0.14)
    else:
        people["shoes"][rows] = (people["shoes"][rows] + 0.45) % 0.9
