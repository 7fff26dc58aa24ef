"""The cameras of every synthetic world: a fixed table, and more of them by their number."""

from typing import Final

import numpy as np
import numpy.typing as npt

from icsr_cli.synthesis.world import World
from icsr_cli.types import DoubleArray, FloatArray, Records

#: Colour of a background without contrast, and the point around which contrast grows.
GREY: Final = 0.45
#: How much of the drawn contrast, and of the table's deviation from neutral light, strength 1 takes.
_CONTRAST: Final = 0.25
_SHIFT: Final = 0.32
#: Values of the tone curve's input, 0 to 1 in so many steps.
TONE_STEPS: Final = 4096
#: The panorama is so many crops wide and so much of a crop higher than a crop.
PANORAMA_CROPS: Final = 8
PANORAMA_MARGIN: Final = 0.25

CAMERA: Final = np.dtype(
    [
        ("gain", "f8", 3),  # white balance: factors of red, green, blue
        ("exposure", "f8"),  # factor
        ("gamma", "f8"),  # exponent
        ("blur", "f8"),  # share that leaks to each neighbouring pixel, per axis
        ("noise", "f8"),  # half the width of the noise, of full scale
        ("resolution", "f8"),  # pixels of the picture per pixel of the sensor
        ("crop", "f8", 3),  # habit: right, down (of the crop's height), tighter (factor - 1)
        ("facing", "f8"),  # the direction most people walk in, in quarter turns from frontal
        ("furniture", "i8"),  # 0 post, 1 low wall, 2 bin, 3 hanging sign
        ("furniture_colour", "f8", 3),
        ("wall", "f8", 3),
        ("ground", "f8", 3),
        ("accent", "f8", 3),
        ("horizon", "f8"),  # of the crop's height
    ]
)

# fmt: off
_TABLE: Final = [
    ((1.00, 1.00, 1.00), 1.00, 1.00, .06, .030, 1.00, ( .00,  .00,  .00), 0.0, 0, (.25, .27, .30),
     (.58, .57, .54), (.42, .41, .40), (.36, .46, .56), .52),
    ((1.22, 1.00, 0.78), 0.92, 1.10, .10, .040, 1.25, ( .02,  .02,  .05), 1.8, 1, (.52, .45, .36),
     (.62, .48, .34), (.36, .32, .30), (.28, .40, .24), .40),
    ((0.80, 0.97, 1.26), 1.12, 0.86, .14, .035, 1.50, (-.02, -.01, -.06), 0.7, 2, (.18, .36, .26),
     (.38, .46, .54), (.54, .55, .56), (.62, .58, .36), .60),
    ((1.05, 1.12, 0.84), 0.70, 1.22, .08, .055, 1.20, ( .01,  .03,  .08), 2.5, 0, (.50, .20, .18),
     (.30, .32, .30), (.30, .36, .24), (.56, .34, .28), .34),
    ((0.90, 0.92, 1.10), 1.34, 0.92, .18, .045, 1.70, (-.01, -.03, -.03), 3.3, 3, (.66, .64, .58),
     (.66, .64, .66), (.48, .44, .50), (.26, .26, .34), .66),
    ((1.16, 0.90, 0.98), 1.02, 1.15, .05, .050, 1.35, ( .03,  .00,  .02), 1.1, 1, (.34, .34, .38),
     (.50, .36, .40), (.46, .46, .42), (.32, .52, .50), .45),
    ((0.86, 1.10, 0.98), 0.84, 0.95, .12, .030, 1.10, (-.03,  .02, -.04), 2.9, 2, (.58, .54, .22),
     (.34, .44, .38), (.38, .36, .34), (.60, .46, .50), .56),
    ((1.10, 1.02, 0.90), 1.20, 1.05, .16, .060, 1.60, ( .00, -.02,  .06), 0.3, 3, (.22, .24, .40),
     (.54, .54, .42), (.58, .56, .52), (.30, .30, .28), .48),
]
# fmt: on


def camera_table(count: int) -> Records:
    """Give the first ``count`` cameras, (count,) of dtype ``CAMERA``. They depend on nothing else."""
    rows = list(_TABLE[:count]) + [_generated(number) for number in range(len(_TABLE), count)]
    return np.array(rows, dtype=CAMERA)


def _generated(number: int) -> tuple[object, ...]:
    draw = np.random.Generator(np.random.PCG64([71, number])).random

    def between(low: float, high: float, size: int | None = None) -> object:
        values = low + (high - low) * np.asarray(draw(size))
        return float(values) if size is None else tuple(values.tolist())

    return (
        between(0.8, 1.22, 3), between(0.7, 1.34), between(0.86, 1.22), between(0.05, 0.18),
        between(0.03, 0.06), between(1.0, 1.7), between(-0.03, 0.03, 3), between(0.0, 4.0), number % 4,
        between(0.2, 0.6, 3), between(0.3, 0.66, 3), between(0.3, 0.58, 3), between(0.25, 0.6, 3),
        between(0.34, 0.66),
    )  # fmt: skip


def gains(world: World, cameras: Records) -> FloatArray:
    """Give the factors of red, green and blue, float32 (cameras, 3), at the world's camera shift."""
    factors = cameras["gain"] * cameras["exposure"][:, None]
    shifted = 1 + (factors - 1) * (_SHIFT * world.camera_shift)
    return np.asarray(np.maximum(shifted, 0.15), np.float32)


def tone_curves(world: World, cameras: Records) -> npt.NDArray[np.uint8]:
    """Give the gamma curves as uint8 (cameras, TONE_STEPS).

    Python's own powers, rounded to 8 bits, so that no processor's vector unit has a say.
    """
    curves = []
    for gamma in cameras["gamma"].tolist():
        exponent = max(1 + (gamma - 1) * (_SHIFT * world.camera_shift), 0.2)
        steps = ((step / (TONE_STEPS - 1)) ** exponent for step in range(TONE_STEPS))
        curves.append([round(255 * value) for value in steps])
    return np.array(curves, dtype=np.uint8)


def panoramas(world: World, cameras: Records) -> FloatArray:
    """Draw what each camera looks at, float32 (cameras, 3, rows, columns), wider than any crop."""
    rows = world.height + 2 * round(world.height * PANORAMA_MARGIN)
    columns = max(PANORAMA_CROPS * world.width, world.width + 8)
    views = np.empty((len(cameras), 3, rows, columns), np.float32)
    for number, camera in enumerate(cameras):
        views[number] = _panorama(camera, number, world.height, rows, columns)
    grey = np.float32(GREY)
    contrasted: FloatArray = grey + (views - grey) * np.float32(_CONTRAST * world.background)
    return np.clip(contrasted, 0.02, 0.98, out=contrasted)


def _panorama(camera: np.void, number: int, height: int, rows: int, columns: int) -> DoubleArray:
    """Draw one view in float64 (3, rows, columns): wall, ground, joints, and things along the wall."""
    random = np.random.Generator(np.random.PCG64([72, number]))
    y = ((np.arange(rows) + 0.5) / height - PANORAMA_MARGIN)[:, None]
    x = ((np.arange(columns) + 0.5) / height)[None, :]
    horizon = camera["horizon"]
    below = np.clip((y - horizon) * height + 0.5, 0, 1)
    wall = camera["wall"][:, None, None] * (1.08 - 0.16 * y)
    ground = camera["ground"][:, None, None] * (0.8 + 0.3 * y)
    view = np.repeat(wall * (1 - below) + ground * below, columns, axis=2)
    joints = np.abs((y * (7 + number % 5)) % 1 - 0.5) > 0.44
    seams = np.abs((x * (2.3 + number % 3)) % 1 - 0.5) > 0.47
    view *= 1 - 0.10 * (joints | seams)
    for _ in range(34):
        left, top, wide, high, shade, pick = random.random(6).tolist()
        centre, middle = left * columns / height, 0.05 + (horizon + 0.05) * top
        half_wide, half_high = 0.03 + 0.13 * wide * wide, 0.04 + 0.22 * high * high
        if pick > 0.7:  # something that stands on the ground
            middle, half_high = horizon - half_high * 0.3, half_high * 1.2
        inside = np.minimum(
            np.clip((half_wide - np.abs(x - centre)) * height + 0.5, 0, 1),
            np.clip((half_high - np.abs(y - middle)) * height + 0.5, 0, 1),
        )
        colour = camera["accent"] if pick < 0.5 else camera["wall"] * (0.45 + 0.9 * shade)
        view += inside * 0.85 * ((colour * (0.7 + 0.6 * shade))[:, None, None] - view)
    grain = random.random((rows // 2 + 1, columns // 2 + 1)).repeat(2, 0).repeat(2, 1)[:rows, :columns]
    return view * (0.94 + 0.12 * grain)
