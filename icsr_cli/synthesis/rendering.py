"""A synthetic world as a folder in the layout of Market-1501, written whole or not at all."""

from functools import lru_cache, partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from icsr_cli.errors import DatasetError, InputError, reason
from icsr_cli.files import whole_folder
from icsr_cli.processes import in_processes
from icsr_cli.progress import Progress
from icsr_cli.synthesis.drawing import batch_count, batch_size, draw_batch
from icsr_cli.synthesis.lens import Optics, optics
from icsr_cli.synthesis.passes import FOLDERS, Plan, plan
from icsr_cli.synthesis.world import World
from icsr_cli.threads import usable_cpus
from icsr_cli.types import NO_TRACK, PixelArray

#: Below so many pixels per process, starting one more costs more time than it saves.
_PIXELS_PER_WORKER: Final = 1 << 23


def draw(world: World) -> tuple[tuple[str, ...], PixelArray]:
    """Draw ``world`` in memory: the files' names and uint8 pixels (n, height, width, 3).

    The pixels are those that :func:`render` writes, before JPEG.
    """
    content, optic = plan(world), optics(world)
    batches = [draw_batch(world, optic, content, number) for number in range(batch_count(world, content))]
    return content.files, np.concatenate(batches)


def tracks_of(world: World) -> dict[str, tuple[int, int]]:
    """Give the track and the frame of every file of ``world`` that belongs to a track; nothing is drawn.

    One track is one pass of a person by a camera, or what a tracker made of it (dial ``impure_tracks``);
    distractors, junk and clutter have none. Frames order the images of a camera in time.
    """
    content = plan(world)
    rows = zip(content.files, content.tracks.tolist(), content.frames.tolist(), strict=True)
    return {name: (track, frame) for name, track, frame in rows if track != NO_TRACK}


def render(
    target: Path, world: World, *, progress: Progress | None = None, workers: int | None = None
) -> None:
    """Write ``world`` to the folder ``target``: Market-1501's three folders and ``world.json``.

    The folder appears whole or not at all, also when this is interrupted. The same world gives the same
    pixels for any number of ``workers`` (processes; None: as many as are worth it).

    Raises :class:`InputError` on totals that cannot be met or a bad ``workers``, and
    :class:`DatasetError` where ``target`` holds something already or cannot be written.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, expected 1 or more, or None for as many as are worth it")
    content = plan(world)
    target = Path(target).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DatasetError(f"{target} holds something already; choose another folder, or move it away")
    worth_it = len(content) * world.height * world.width // _PIXELS_PER_WORKER
    count = workers or max(1, min(usable_cpus(), worth_it))
    try:
        with whole_folder(target) as folder:
            for name in FOLDERS:
                (folder / name).mkdir()
            _write(folder, world, content, count, progress or Progress())
            (folder / "world.json").write_text(world.to_json(), encoding="utf-8")
    except OSError as error:
        raise DatasetError(
            f"the synthetic data set could not be written to {target}: {reason(error)}. "
            "Nothing was left behind; check the free space and the rights of the folder, and try again"
        ) from error


def _write(folder: Path, world: World, content: Plan, workers: int, progress: Progress) -> None:
    batches, write = range(batch_count(world, content)), partial(_write_batch, folder, world)
    by_processes = partial(in_processes, task="renders images", advice="Try again with fewer workers.")
    with progress.task("rendering", len(content), "img") as task:
        for count in map(write, batches) if workers == 1 else by_processes(write, batches, workers):
            task.advance(count)


@lru_cache(maxsize=1)
def _prepared(world: World) -> tuple[Plan, Optics]:
    """Plan the world once per process."""
    return plan(world), optics(world)


def _write_batch(folder: Path, world: World, number: int) -> int:
    """Draw and write one batch; give how many pictures it had."""
    content, optic = _prepared(world)
    pixels = draw_batch(world, optic, content, number)
    first = number * batch_size(world)
    for offset, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / content.files[first + offset], quality=95, subsampling=0)
    return len(pixels)
