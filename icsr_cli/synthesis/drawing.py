"""From a plan's shots to pixels, batch by batch; each batch stands alone."""

from typing import Final

import numpy as np

from icsr_cli.synthesis.brush import Canvas
from icsr_cli.synthesis.figure import paint_people
from icsr_cli.synthesis.lens import Optics, backgrounds, expose, furniture
from icsr_cli.synthesis.passes import Plan, stream
from icsr_cli.synthesis.world import World
from icsr_cli.types import FloatArray, PixelArray, Records

#: Pixels drawn at once. Part of what decides the pixels, because noise is drawn per batch.
_BATCH_PIXELS: Final = 1 << 17
_NOISE: Final = 100


def batch_size(world: World) -> int:
    """Give how many pictures are drawn at once."""
    return max(8, _BATCH_PIXELS // (world.height * world.width))


def batch_count(world: World, plan: Plan) -> int:
    """Give how many batches the plan has."""
    return -(-len(plan) // batch_size(world))


def draw_batch(world: World, optic: Optics, plan: Plan, number: int) -> PixelArray:
    """Draw batch ``number`` of the plan: uint8 (batch, height, width, 3).

    The pixels depend on the world and the number alone, not on who draws it or what was drawn before.
    """
    size = batch_size(world)
    shots = plan.shots[number * size : (number + 1) * size]
    pixels = backgrounds(world, optic, shots)
    canvas = _canvas(world, shots, plan.people[shots["person"]]["stature"], pixels)
    paint_people(canvas, plan.people[shots["person"]], shots)
    _paint_companions(world, plan, shots, pixels)
    furniture(world, optic, shots, pixels)
    return expose(world, optic, shots, pixels, stream(world, _NOISE, number))


def _paint_companions(world: World, plan: Plan, shots: Records, pixels: FloatArray) -> None:
    """Paint the second person of the shots that have one, in front of the first; in place."""
    rows = np.flatnonzero(shots["companion"])
    if len(rows) == 0:
        return
    theirs = shots[rows]
    theirs["person"] = theirs["companion"] - 1
    theirs["shift_x"] += theirs["companion_x"]
    theirs["phase"] *= -1
    people = plan.people[theirs["person"]]
    canvas = _canvas(world, theirs, people["stature"], np.ascontiguousarray(pixels[..., rows]))
    paint_people(canvas, people, theirs)
    pixels[..., rows] = canvas.pixels


def _canvas(world: World, shots: Records, stature: FloatArray, pixels: FloatArray) -> Canvas:
    """Lay the body's coordinates over the pixels: the crop decides where it stands and how large it is."""
    tall = 0.9 * (1 + shots["scale"]) * (1 + 0.03 * stature)
    top = 0.5 * (1 - tall) + shots["shift_y"]
    rows, columns = (
        (np.arange(n, dtype=np.float32) + 0.5) / world.height for n in (world.height, world.width)
    )
    y = (rows[:, None] - top) / tall
    x = (columns[:, None] - world.width / (2 * world.height) - shots["shift_x"]) / tall
    return Canvas(pixels, x[None], y[:, None], (tall * world.height).astype(np.float32))
