"""One person in every picture of a batch, painted from back to front."""

from dataclasses import dataclass

import numpy as np

from icsr_cli.synthesis.brush import Canvas, Floats, bump, polyline, ramp, triangle_wave
from icsr_cli.types import Records

# The body, in body heights from the top of the head.
SHOULDER, WAIST, HIP, KNEE, ANKLE, SOLE = 0.165, 0.38, 0.50, 0.73, 0.955, 1.0
HEAD, HAND, PANTS = 0.078, 0.53, 0.40


@dataclass
class Pose:
    """How each body stands, every entry (batch,) float32.

    ``front`` is 1 seen from the front, -1 from behind, ``side`` 1 when it walks to the right, -1 to the
    left; front^2 + side^2 = 1. ``flat`` is the width of a body part that is flat, 1 from the front and
    less from the side. ``facing`` is 1 where the front shows, 0 where the back does.
    """

    front: Floats
    side: Floats
    flat: Floats
    facing: Floats


def pose_of(shots: Records) -> Pose:
    """Turn the quarter turns of shots (batch,) into the two components of the direction."""
    turn = shots["facing"].astype(np.float32) * 0.25
    front = triangle_wave(turn)  # 1 at 0, -1 at half a turn
    side = triangle_wave(turn - 0.25)
    length = np.sqrt(front * front + side * side)
    front, side = front / length, side / length
    flat = 0.62 + 0.38 * np.abs(front)
    return Pose(front, side, flat, ramp(front, -0.15, 0.15))


def _colours(people: Records, name: str) -> Floats:
    """Give a colour per picture, float32 (3, batch)."""
    return np.ascontiguousarray(people[name].T)


def _mixed(people: Records, garment: str, share: Floats) -> Floats:
    """Give a garment's colour, float32 (3, rows, columns, batch): ``share`` of its second, else its first."""
    first, second = _colours(people, f"{garment}_a"), _colours(people, f"{garment}_b")
    return first[:, None, None] + share * (second - first)[:, None, None]


def paint_people(canvas: Canvas, people: Records, shots: Records) -> None:
    """Paint person ``people[i]`` as ``shots[i]`` sees them into picture i; both (batch,)."""
    pose = pose_of(shots)
    visible = shots["visible"]
    _shadow(canvas, visible)
    _hair_behind(canvas, people, pose, visible * pose.facing)
    _backpack(canvas, people, pose, visible * pose.facing)
    _arm(canvas, people, shots, pose, -1, visible)
    _leg(canvas, people, shots, pose, -1, visible)
    _leg(canvas, people, shots, pose, 1, visible)
    _skirt(canvas, people, shots, pose, visible)
    _torso(canvas, people, shots, pose, visible)
    _head(canvas, people, pose, visible)
    _straps(canvas, people, pose, visible)
    _arm(canvas, people, shots, pose, 1, visible)
    _backpack(canvas, people, pose, visible * (1 - pose.facing))
    _hair_behind(canvas, people, pose, visible * (1 - pose.facing))
    _shoulder_bag(canvas, people, pose, visible)


def _shadow(canvas: Canvas, visible: Floats) -> None:
    dark = np.zeros((3, 1), np.float32)
    canvas.ellipse(np.float32(0.995), np.float32(0.022), np.float32(0), 0.17 * visible, dark, 0.4)


def _hair_behind(canvas: Canvas, people: Records, pose: Pose, alpha: Floats) -> None:
    """Long hair, which hangs behind the neck."""
    bottom = HEAD + 0.03 + people["hair_length"]
    centre = -0.02 * pose.side
    wide = 0.052 * people["head"] * people["hair_volume"] * (people["hair_length"] > 0.03)
    canvas.shape(HEAD, bottom, centre, wide, _colours(people, "hair"), alpha)


def _head(canvas: Canvas, people: Records, pose: Pose, visible: Floats) -> None:
    skin, hair = _colours(people, "skin"), _colours(people, "hair")
    size = people["head"]
    canvas.shape(0.11, 0.175, 0, 0.03 * size, skin * 0.88, visible)
    wide = 0.05 * size * (0.94 + 0.06 * people["hair_volume"])
    centre = 0.012 * pose.side
    canvas.ellipse(HEAD - 0.004 * size, 0.071 * size, centre, wide * people["hair_volume"], hair, visible)
    shown = ramp(pose.front, -0.55, 0.1)
    face = centre + 0.016 * pose.side
    canvas.ellipse(HEAD + 0.014 * size, 0.056 * size, face, wide * 0.88 * shown, skin, visible)
    eyes = skin * 0.55
    canvas.shape(0.070, 0.082, face + 0.006 * pose.side, wide * 0.6 * shown, eyes, 0.6 * visible * shown)
    hat, shade = people["hat"] * visible, _colours(people, "hat_colour")
    rows = canvas.rows(0.0, 0.075)
    crown = wide * 1.12 * bump(canvas.y[rows], 0.055, 0.06)
    canvas.fill(rows, canvas.mask(rows, centre, crown, -0.01, 0.052, hat), shade[:, None, None])
    brim = centre + 0.03 * pose.side
    canvas.shape(0.042, 0.058, brim, wide * 1.25, shade * 0.8, hat)


def _upper_pattern(canvas: Canvas, rows: slice, people: Records, pose: Pose) -> tuple[Floats, Floats, Floats]:
    """Give the pattern's row part (rows, 1, b), column part (1, columns, b) and what joins them (3, b).

    The share of the second colour is j0 row + j1 column + j2 row x column.
    """
    pattern, scale = people["pattern"], people["pattern_scale"]
    y = canvas.y[rows]
    across = ramp(triangle_wave(y * (13 * scale)), -0.35, 0.35)
    begin = np.array([0, 0, 0, 0, 0.22, 0.32, 0, 0.25], np.float32)[pattern]
    end = np.array([0, 0, 0, 0, 0.34, 2, 0, 0.33], np.float32)[pattern]
    edge = np.float32(0.008)
    band = ramp(y, begin - edge, begin + edge) * (1 - ramp(y, end - edge, end + edge))
    waves = (pattern == 1) | (pattern == 3)
    row = np.where(waves, across, band)
    u = canvas.x / pose.flat
    along = ramp(triangle_wave(u * (16 * scale) + 0.25), -0.35, 0.35)
    half = np.array([0, 0, 0, 0, 0.055, 0, 0.032, 0], np.float32)[pattern]
    slot = ramp(half - np.abs(u - 0.05 * pose.side), -edge, edge)
    column = np.where((pattern == 2) | (pattern == 3), along, slot)
    join = np.array(
        [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, -2), (0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 0, 0)], np.float32
    )[pattern].T
    only_front = np.where((pattern == 4) | (pattern == 6), pose.facing, np.float32(1))
    return row, column, np.ascontiguousarray(join * only_front)


def _torso(canvas: Canvas, people: Records, shots: Records, pose: Pose, visible: Floats) -> None:
    bottom = HIP - 0.02 + people["coat"]
    rows = canvas.rows(0.14, bottom)
    broad = people["build"] * pose.flat
    half = polyline(
        canvas.y[rows],
        [(0.145, 0.035 * broad), (SHOULDER + 0.02, 0.108 * broad), (WAIST, 0.088 * broad),
         (HIP, 0.100 * broad), (0.65, 0.112 * broad)],
    )  # fmt: skip
    row, column, join = _upper_pattern(canvas, rows, people, pose)
    share = row * (join[0] + join[2] * column) + join[1] * column
    cloth = _mixed(people, "upper", share)
    cloth *= 1 + shots["sun"] * 4 * canvas.x
    canvas.fill(rows, canvas.mask(rows, shots["lean"], half, 0.145, bottom, visible), cloth)


def _arm(canvas: Canvas, people: Records, shots: Records, pose: Pose, hand: int, visible: Floats) -> None:
    """Paint one arm: ``hand`` 1 is the one nearer to the camera, or on the right."""
    rows = canvas.rows(SHOULDER, HAND + 0.02)
    y = canvas.y[rows]
    outward = hand * 0.104 * people["build"] * np.abs(pose.front)
    swing = hand * 0.075 * shots["phase"] * shots["swing"] * pose.side
    centre = polyline(
        y, [(SHOULDER, outward), (0.34, outward * 1.18 + 0.35 * swing), (HAND, outward * 1.2 + swing)]
    )
    half = polyline(y, [(SHOULDER, 0.026 * people["build"]), (HAND, 0.019 * people["build"])])
    row, _, join = _upper_pattern(canvas, rows, people, pose)
    waves = join[0] * ((people["pattern"] == 1) | (people["pattern"] == 3) | (people["pattern"] == 7))
    share = np.maximum(row * waves, people["sleeve_b"] * (people["pattern"] > 3))
    bare = ramp(y, SHOULDER + people["sleeve"] * 0.31 - 0.008, SHOULDER + people["sleeve"] * 0.31 + 0.008)
    shade = np.float32(0.86 if hand > 0 else 0.76)
    cloth = shade * _mixed(people, "upper", share)
    colour = cloth + bare * (_colours(people, "skin")[:, None, None] - cloth)
    canvas.fill(rows, canvas.mask(rows, centre, half, SHOULDER, HAND, visible), colour)


def _lower_colour(canvas: Canvas, rows: slice, people: Records, end: Floats) -> Floats:
    """Give the lower garment's colour per row, (3, rows, 1, batch); it ends at ``end``."""
    y, pattern = canvas.y[rows], people["lower_pattern"]
    across = ramp(triangle_wave(y * (11 * people["pattern_scale"])), -0.35, 0.35)
    begin = np.where(pattern == 1, end - 0.07, np.where(pattern == 3, 0.5 * (PANTS + 0.08 + end), 2))
    share = np.where(pattern == 2, across, ramp(y, begin - 0.008, begin + 0.008)).astype(np.float32)
    return _mixed(people, "lower", share)


def _lower_end(people: Records) -> Floats:
    return HIP + people["lower_end"] * (ANKLE - HIP)


def _leg(canvas: Canvas, people: Records, shots: Records, pose: Pose, foot: int, visible: Floats) -> None:
    """Paint one leg with its trouser leg and shoe: ``foot`` 1 is the nearer one, or on the right."""
    rows = canvas.rows(HIP - 0.03, SOLE)
    y = canvas.y[rows]
    apart = foot * 0.043 * people["build"] * (0.15 + 0.85 * np.abs(pose.front))
    step = foot * 0.115 * shots["phase"] * shots["stride"] * pose.side
    lifted = foot * 0.02 * shots["phase"] * np.abs(pose.front)
    knee = apart * 1.05 + 0.5 * step + 0.02 * pose.side
    centre = polyline(y, [(HIP, apart * 0.95), (KNEE, knee), (ANKLE, apart + step)])
    thick = people["build"] * (1 - 0.12 * people["skirt"])
    half = polyline(y, [(HIP, 0.052 * thick), (KNEE, 0.038 * thick), (ANKLE, 0.030 * thick)])
    sole = SOLE - np.maximum(lifted, 0)
    end = _lower_end(people) - np.maximum(lifted, 0)
    cloth = _lower_colour(canvas, rows, people, end)
    bare = np.maximum(ramp(y, end - 0.008, end + 0.008), people["skirt"])
    skin = _colours(people, "skin")[:, None, None]
    shade = np.float32(0.95 if foot > 0 else 0.8)
    colour = shade * (cloth + bare * (skin - cloth))
    canvas.fill(rows, canvas.mask(rows, centre, half, HIP - 0.04, sole - 0.01, visible), colour)
    toe = apart + step + 0.024 * pose.side
    wide = 0.030 + 0.020 * np.abs(pose.side)
    canvas.ellipse(sole - 0.016, 0.026, toe, wide * visible, _colours(people, "shoes"))


def _skirt(canvas: Canvas, people: Records, shots: Records, pose: Pose, visible: Floats) -> None:
    end = _lower_end(people)
    rows = canvas.rows(WAIST, end)
    broad = people["build"] * pose.flat
    moved = 0.02 * np.abs(shots["phase"] * pose.side)
    half = polyline(
        canvas.y[rows], [(WAIST, 0.085 * broad), (HIP, 0.102 * broad), (end, 0.125 * broad + moved)]
    )
    colour = _lower_colour(canvas, rows, people, end)
    mask = canvas.mask(rows, shots["lean"], half, WAIST, end, visible * people["skirt"])
    canvas.fill(rows, mask, colour)


def _backpack(canvas: Canvas, people: Records, pose: Pose, alpha: Floats) -> None:
    """Paint the backpack: whole from behind, sticking out behind from the side."""
    size = people["bag_size"]
    rows = canvas.rows(0.17, 0.45)
    wide = 0.082 * size * (0.65 + 0.35 * np.abs(pose.front))
    centre = -0.10 * pose.side
    top, bottom = 0.30 - 0.115 * size, 0.30 + 0.115 * size
    half = wide * polyline(
        canvas.y[rows], [(top, 0.7), (top + 0.04, 1.0), (bottom - 0.03, 1.0), (bottom, 0.85)]
    )
    colour = _colours(people, "bag_colour")
    worn = alpha * people["backpack"]
    canvas.fill(rows, canvas.mask(rows, centre, half, top, bottom, worn), colour[:, None, None])
    canvas.shape(bottom - 0.085 * size, bottom - 0.02, centre, wide * 0.7, colour * 0.72, worn)


def _straps(canvas: Canvas, people: Records, pose: Pose, visible: Floats) -> None:
    colour = _colours(people, "bag_colour") * 0.85
    alpha = people["backpack"] * visible * pose.facing
    for side in (-1, 1):
        centre = side * 0.06 * people["build"] * np.abs(pose.front) + 0.02 * pose.side
        canvas.shape(0.155, 0.36, centre, 0.013, colour, alpha)


def _shoulder_bag(canvas: Canvas, people: Records, pose: Pose, visible: Floats) -> None:
    """Paint the bag at one hip and its strap; the body hides it when it hangs on the far side."""
    hip = people["bag_side"] * pose.front
    near = ramp(people["bag_side"] * pose.side + np.abs(pose.front), -0.1, 0.4)
    alpha = people["shoulder_bag"] * visible * near
    colour, size = _colours(people, "bag_colour"), people["bag_size"]
    centre = hip * 0.115 * people["build"]
    rows = canvas.rows(0.16, 0.48)
    strap = polyline(canvas.y[rows], [(0.165, -0.5 * centre), (0.47, centre)])
    dark = (colour * 0.7)[:, None, None]
    canvas.fill(rows, canvas.mask(rows, strap, 0.011, 0.165, 0.47, alpha), dark)
    canvas.shape(0.45, 0.45 + 0.115 * size, centre, 0.062 * size, colour, alpha)
