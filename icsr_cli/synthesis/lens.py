"""What the camera does to a scene: furniture in the way, light, blur, resolution, noise, gamma."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icsr_cli.synthesis.brush import ramp
from icsr_cli.synthesis.cameras import TONE_STEPS, camera_table, gains, panoramas, tone_curves
from icsr_cli.synthesis.world import World
from icsr_cli.types import FloatArray, PixelArray, Records


@dataclass(frozen=True)
class Optics:
    """The cameras of a world, ready for use: backgrounds, light, tone curves."""

    cameras: Records
    views: FloatArray
    gains: FloatArray
    tones: npt.NDArray[np.uint8]


def optics(world: World) -> Optics:
    """Prepare every camera of ``world`` (once per process)."""
    cameras = camera_table(world.cameras)
    return Optics(cameras, panoramas(world, cameras), gains(world, cameras), tone_curves(world, cameras))


def backgrounds(world: World, optic: Optics, shots: Records) -> FloatArray:
    """Cut each shot's background out of its camera's view: float32 (3, height, width, batch)."""
    windows = np.lib.stride_tricks.sliding_window_view(optic.views, (world.height, world.width), axis=(2, 3))
    cut = windows[shots["camera"], :, shots["background_y"], shots["background_x"]]
    return np.ascontiguousarray(cut.transpose(1, 2, 3, 0))


def furniture(world: World, optic: Optics, shots: Records, pixels: FloatArray) -> None:
    """Paint the camera's furniture over occluded persons of shots (batch,): (3, h, w, batch), in place."""
    camera = optic.cameras[shots["camera"]]
    kind = camera["furniture"]
    aspect = np.float32(0.5 * world.width / world.height)
    across, down = shots["occluder_x"], shots["occluder_y"]
    centre = np.array([0.7, 0.3, 0.8, 0.6], np.float32)[kind] * aspect * across
    wide = np.array([0.24, 2.0, 0.5, 0.7], np.float32)[kind] * aspect
    top = np.where(kind == 3, -1, np.where(kind == 0, -1, 0.60 + 0.2 * down)).astype(np.float32)
    bottom = np.where(kind == 3, 0.18 + 0.16 * down, 2).astype(np.float32)
    y, x = (
        ((np.arange(count, dtype=np.float32) + 0.5) / world.height)[:, None]
        for count in (world.height, world.width)
    )
    soft = np.float32(0.5 / world.height)
    row = ramp(y, top - soft, top + soft) * (1 - ramp(y, bottom - soft, bottom + soft))
    column = ramp(wide - np.abs(x - aspect - centre), -soft, soft)
    mask = (row * shots["occluded"])[:, None] * column[None]
    colour = camera["furniture_colour"].T.astype(np.float32)[:, None, None]
    shaded = colour * (1 + 0.15 * ((x - aspect - centre) / wide))
    change = shaded - pixels
    change *= mask
    pixels += change


def expose(
    world: World, optic: Optics, shots: Records, pixels: FloatArray, random: np.random.Generator
) -> PixelArray:
    """Turn scenes (3, height, width, batch), 0 to 1, into pictures uint8 (batch, height, width, 3)."""
    cameras = optic.cameras[shots["camera"]]
    pixels *= (optic.gains[shots["camera"]] * shots["light"][:, None]).T[:, None, None]
    if world.resolution > 0:
        factor = (1 + (cameras["resolution"] - 0.75) * world.resolution).astype(np.float32)
        pixels = _resample(_resample(pixels, factor, 1), factor, 2)
    if world.blur > 0:
        leak = np.minimum(cameras["blur"] * world.blur, 0.33).astype(np.float32)
        pixels = _leak(_leak(pixels, leak, 1), leak, 2)
    if world.noise > 0:
        _add_noise(pixels, (cameras["noise"] * world.noise).astype(np.float32), random)
    steps = np.minimum(np.maximum(pixels, 0, out=pixels), 1, out=pixels)
    steps *= TONE_STEPS - 1
    steps += np.float32(0.5)
    place = steps.astype(np.int32)
    place += (shots["camera"] * TONE_STEPS).astype(np.int32)
    return np.ascontiguousarray(optic.tones.reshape(-1)[place].transpose(3, 1, 2, 0))


def _leak(pixels: FloatArray, share: FloatArray, axis: int) -> FloatArray:
    """Blur along one axis: ``share`` (batch,) of each neighbour comes in; the edge repeats itself."""
    moved = np.moveaxis(pixels, axis, 1)
    result = pixels * (1 - 2 * share)
    target = np.moveaxis(result, axis, 1)
    part = moved * share
    target[:, 1:] += part[:, :-1]
    target[:, :-1] += part[:, 1:]
    target[:, :1] += part[:, :1]
    target[:, -1:] += part[:, -1:]
    return result


def _resample(pixels: FloatArray, factor: FloatArray, axis: int) -> FloatArray:
    """Read the picture by a sensor whose pixels are ``factor`` (batch,) times as large, and blow it up.

    Each sensor pixel is the mean of two points inside of it; between sensor pixels it is a straight line.
    """
    length = pixels.shape[axis]
    position = (np.arange(length, dtype=np.float32) + 0.5)[:, None] / factor - 0.5
    cell = np.floor(position)
    weight = position - cell
    low, high = _sensor(pixels, cell, factor, axis), _sensor(pixels, cell + 1, factor, axis)
    shape = (length, 1, -1) if axis == 1 else (1, length, -1)
    high -= low
    high *= weight.reshape(shape)
    high += low
    return high


def _sensor(pixels: FloatArray, cell: FloatArray, factor: FloatArray, axis: int) -> FloatArray:
    """Give what the sensor pixels ``cell`` (length, batch) saw, for each picture its own cells."""
    length, batch = cell.shape
    seen = []
    for part in (0.25, 0.75):
        at = np.floor((cell + part) * factor)
        at = np.minimum(np.maximum(at, 0), length - 1).astype(np.intp)
        which = np.arange(batch)
        taken = pixels[:, at, :, which] if axis == 1 else pixels[:, :, at, which]
        # Advanced indices apart from each other put their axes first: back to (3, height, width, batch).
        seen.append(taken.transpose(2, 0, 3, 1) if axis == 1 else taken)
    return np.ascontiguousarray((seen[0] + seen[1]) * 0.5)


def _add_noise(pixels: FloatArray, width: FloatArray, random: np.random.Generator) -> None:
    """Add noise that is the same in all colours and some that is not; triangular, in place."""
    grain = np.frombuffer(random.bytes(2 * pixels.size), np.uint8).reshape(2, *pixels.shape)
    chroma = grain[0].astype(np.int16) - grain[1]
    luma = chroma[0] + chroma[1]
    sum_of_both = chroma + luma
    pixels += sum_of_both * (width * np.float32(1 / 510))
