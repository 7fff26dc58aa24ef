"""Blocks of images decoded in parallel processes, and kept as a store wants them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from icsr_cli.images.decode import resized_or_reason
from icsr_cli.processes import in_processes
from icsr_cli.types import PixelArray, Size

#: Below this many images starting processes costs more than it saves.
_WORTH_PROCESSES = 1024


#: Of a kept block: the CRC-32 of its bytes; if the caller is to write them, how many each image has, and all.
Kept: TypeAlias = "tuple[int, Sequence[int], bytes]"


@dataclass(frozen=True)
class Job:
    """One block to decode: the images at ``paths``, the first of which is row ``start`` of the split.

    Their pixels, resized to ``size`` (height, width), are given to ``keep`` in the process that decoded them,
    with ``start`` and the rows of those that cannot be read; with None they are only decoded.
    """

    block: int
    start: int
    paths: Sequence[str]
    size: Size
    keep: Callable[[int, PixelArray, Iterable[int]], Kept] | None = None


@dataclass(frozen=True)
class Result:
    """A finished block: images, the CRC-32 of its bytes, and (row, reason) of those that cannot be read.

    ``lengths`` and ``data`` as in ``Kept``.
    """

    block: int
    count: int
    checksum: int
    bad: Sequence[tuple[int, str]]
    lengths: Sequence[int] = ()
    data: bytes = b""


def work(jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Decode the jobs in up to ``workers`` processes, or here where few; results come in order.

    Raises DatasetError where a process was killed, and what a job's ``keep`` does.
    """
    if workers < 2 or sum(len(job.paths) for job in jobs) < _WORTH_PROCESSES:
        return map(_decode_block, jobs)
    advice = "What is finished is kept: run the same command again, with fewer --workers if it happens again."
    return in_processes(_decode_block, jobs, workers, "reads images", advice)


def _decode_block(job: Job) -> Result:
    height, width = job.size
    pixels = np.zeros((len(job.paths), height, width, 3), dtype=np.uint8)
    bad = []
    for row, path in enumerate(job.paths):
        found = resized_or_reason(path, height, width)
        if isinstance(found, str):
            bad.append((job.start + row, found))
        else:
            pixels[row] = found
    kept = (0, (), b"") if job.keep is None else job.keep(job.start, pixels, [row for row, _ in bad])
    return Result(job.block, len(pixels), kept[0], bad, *kept[1:])
