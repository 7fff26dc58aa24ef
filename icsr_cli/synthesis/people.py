"""Who walks through a synthetic world: bodies, clothes, bags, drawn from the seed."""

from typing import Final

import numpy as np

from icsr_cli.types import DoubleArray, IntArray, Records

#: Upper garments: plain, stripes across, stripes along, checks, print, two tones, open, chest band.
PATTERNS: Final = ("plain", "across", "along", "checks", "print", "two-tone", "open", "band")
#: Lower garments: how far down the leg they reach (0 hip, 1 ankle) and whether they are a skirt.
LOWERS: Final = ((0.96, 0), (0.96, 0), (0.45, 0), (0.42, 1), (0.75, 1))

PERSON: Final = np.dtype(
    [
        ("build", "f4"), ("stature", "f4"), ("head", "f4"),
        ("skin", "f4", 3), ("hair", "f4", 3), ("hair_length", "f4"), ("hair_volume", "f4"),
        ("hat", "f4"), ("hat_colour", "f4", 3),
        ("upper_a", "f4", 3), ("upper_b", "f4", 3), ("pattern", "i8"), ("pattern_scale", "f4"),
        ("sleeve", "f4"), ("sleeve_b", "f4"), ("coat", "f4"),
        ("lower_a", "f4", 3), ("lower_b", "f4", 3), ("lower_end", "f4"), ("skirt", "f4"),
        ("lower_pattern", "i8"), ("shoes", "f4", 3),
        ("backpack", "f4"), ("shoulder_bag", "f4"), ("bag_side", "f4"), ("bag_colour", "f4", 3),
        ("bag_size", "f4"),
    ]
)  # fmt: skip

_SKINS: Final = np.array([(0.88, 0.70, 0.58), (0.76, 0.56, 0.42), (0.52, 0.35, 0.25), (0.92, 0.76, 0.66)])
_HAIRS: Final = np.array([(0.08, 0.07, 0.07), (0.24, 0.15, 0.09), (0.55, 0.40, 0.20), (0.50, 0.49, 0.48)])
#: The colours that garments share.
_CLOTHES: Final = np.array([(0.12, 0.12, 0.14), (0.72, 0.70, 0.66), (0.22, 0.30, 0.48), (0.55, 0.24, 0.22)])


def draw_people(count: int, similarity: float, random: np.random.Generator) -> Records:
    """Draw ``count`` people, (count,) of dtype ``PERSON``; colours are 0 to 1, lengths of body height.

    ``similarity`` (0 to 1) is the share of a garment's colour that comes from the common palette.
    Every attribute draws the same numbers whatever the dial, so that only colours change with it.
    """
    people = np.zeros(count, PERSON)

    def uniform(low: float, high: float) -> DoubleArray:
        return low + (high - low) * random.random(count)

    def choice(probabilities: tuple[float, ...]) -> IntArray:
        steps = np.cumsum(np.array(probabilities))
        found: IntArray = np.searchsorted(steps, random.random(count) * steps[-1])
        return np.minimum(found, len(steps) - 1)

    def garment(avoid: IntArray | None = None) -> tuple[DoubleArray, IntArray]:
        pick = (random.random(count) * len(_CLOTHES)).astype(np.int64)
        if avoid is not None:  # a second colour that can be told from the first
            pick = np.where(pick == avoid, (pick + 1) % len(_CLOTHES), pick)
        own = 0.06 + 0.84 * random.random((count, 3))
        return similarity * _CLOTHES[pick] + (1 - similarity) * own, pick

    people["build"], people["stature"] = uniform(0.82, 1.22), uniform(-1, 1)
    people["head"] = uniform(0.9, 1.1)
    people["skin"] = _SKINS[choice((1, 1, 1, 1))] * uniform(0.92, 1.06)[:, None]
    people["hair"] = _HAIRS[choice((3, 3, 2, 1))] * uniform(0.8, 1.2)[:, None]
    people["hair_length"] = np.array([0.0, 0.07, 0.16])[choice((3, 2, 2))] * uniform(0.8, 1.2)
    people["hair_volume"] = uniform(0.95, 1.25)
    people["hat"] = choice((4, 1))
    people["hat_colour"] = garment()[0]
    people["upper_a"], first = garment()
    people["upper_b"] = garment(first)[0]
    people["pattern"] = choice((3, 2, 2, 2, 2, 2, 2, 2))
    people["pattern_scale"] = uniform(0.8, 1.3)
    people["sleeve"] = np.array([0.35, 1.0, 0.0])[choice((3, 5, 1))]
    people["sleeve_b"] = choice((3, 1))
    people["coat"] = np.array([0.0, 0.0, 0.17])[choice((3, 2, 1))] * uniform(0.7, 1.2)
    people["lower_a"], first = garment()
    people["lower_b"] = garment(first)[0]
    kinds = np.array(LOWERS)[choice((4, 2, 2, 2, 1))]
    people["lower_end"], people["skirt"] = kinds[:, 0] * uniform(0.94, 1.04), kinds[:, 1]
    people["lower_pattern"] = choice((5, 1, 1, 2))
    people["shoes"] = garment()[0]
    bag = choice((3, 2, 2))
    people["backpack"], people["shoulder_bag"] = bag == 1, bag == 2
    people["bag_side"] = np.where(random.random(count) < 0.5, -1, 1)
    people["bag_colour"], people["bag_size"] = garment()[0], uniform(0.85, 1.25)
    return people
