"""A pixel store of JPEGs: a fraction of the bytes, decoded whenever pixels are asked for.

Images are resized exactly as for the raw store, then encoded by Pillow as baseline JPEG of quality 95 with
4:4:4 subsampling: colour is kept at every pixel, and no value is far from what it was, but they are not the
same pixels. They lie one after the other in ``<part>-<height>x<width>.jpegs``; image i is its bytes from
``offsets[i]`` to ``offsets[i + 1]``, int64 (n + 1,), in ``.jpegs.offsets.npy``.
"""

import io
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from icsr_cli.errors import DatasetError
from icsr_cli.files import announce, map_array, regular
from icsr_cli.images.blocks import Kept, Result
from icsr_cli.threads import in_threads, row_ranges, thread_count
from icsr_cli.types import IntArray, PixelArray, Size

QUALITY = 95
#: Pillow's number for 4:4:4.
SUBSAMPLING = 0
#: A picture of one colour takes this share of its raw bytes; any other more.
_LEAST = 1 / 64


class Jpegs:
    """Images of one size in a mapped file, uint8 (n, h, w, 3), RGB, decoded when rows are asked for.

    ``offsets`` int64 (n + 1,) as above; ``names`` (n,) for messages.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, offsets: IntArray, size: Size, names: Sequence[str]) -> None:
        self.path, self.offsets, self._names = path, offsets, names
        self.shape = (len(offsets) - 1, *size, 3)
        self._bytes: npt.NDArray[np.uint8] = np.memmap(path, np.uint8, "r")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> PixelArray:
        """Decode the images at ``rows``, int (b,) or a number, on as many threads as torch has.

        Raises:
            DatasetError: one of them is damaged.
            IndexError: there is no such row.
        """
        wanted = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"rows from 0 to {len(self) - 1}, got {wanted.min()} to {wanted.max()}")
        announce(self._bytes, self.offsets[wanted], self.offsets[wanted + 1])
        images = np.empty((len(wanted), *self.shape[1:]), dtype=np.uint8)

        def work(low: int, high: int) -> None:
            for place in range(low, high):
                images[place] = self._decode(int(wanted[place]))

        in_threads(work, row_ranges(len(wanted), 4 * thread_count()))
        return images if np.ndim(rows) else images[0]

    def encoded(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Give the bytes of neighbouring images as they lie in the file."""
        return self._bytes[self.offsets[rows.start] : self.offsets[rows.stop]]

    def _decode(self, row: int) -> PixelArray:
        _, height, width, _ = self.shape
        # Copied by numpy, which lets other threads go on while the disk is waited for.
        stream = io.BytesIO(self.encoded(slice(row, row + 1)).copy().data)
        try:
            with Image.open(stream, formats=("JPEG",)) as image:
                if image.size != (width, height) or image.mode != "RGB":
                    raise ValueError(f"it is {image.mode} of {image.height} x {image.width} pixels")
                return np.asarray(image)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises nearly anything on damaged bytes
            raise DatasetError(
                f"{self.path}: the image {self._names[row]} is damaged there ({error}). "
                f"icsr prepare {self.path.parent.parent.name} --verify takes a damaged store away; it is "
                "built again when it is needed."
            ) from error


class JpegForm:
    """What is particular to a store of JPEGs; as ``store.RawForm`` says of pixels."""

    mark, suffix = ".jpegs", ""
    version = f" JPEG {QUALITY} 4:4:4"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Give the files of a store: its images and their offsets."""
        return path, path.with_name(f"{path.name}.offsets.npy")

    def least(self, shape: Sequence[int]) -> int:
        """Give the bytes that it takes at least."""
        return int(np.prod(shape) * _LEAST)

    def begin(self, path: Path, shape: Sequence[int]) -> None:
        """Make the empty file that blocks are added to."""
        path.write_bytes(b"")

    def keeper(self, path: Path, shape: Sequence[int]) -> Any:
        """Give what encodes a block where it is decoded; its bytes travel back."""
        return encode

    def append(self, path: Path, shape: Sequence[int], start: int, result: Result) -> None:
        """Add the bytes of a block behind those before it."""
        with path.open("ab") as file:
            file.write(result.data)

    def held(self, path: Path, shape: Sequence[int], results: Iterable[Result]) -> list[Result]:
        """Give the blocks, from the first on, whose bytes are there; cut off what follows them."""
        found: list[Result] = []
        end = 0
        with regular(path).open("r+b") as file:
            for result in results:
                data = file.read(sum(result.lengths))
                fits = result.block == len(found) and len(result.lengths) == result.count
                if not fits or zlib.crc32(data) != result.checksum:
                    break
                found.append(result)
                end += len(data)
            file.truncate(end)
        return found

    def close(
        self, path: Path, shape: Sequence[int], results: Sequence[Result], missing: Sequence[int]
    ) -> tuple[list[int], dict[str, Any]]:
        """Write the offsets; missing images have no bytes, and need no room."""
        lengths = np.concatenate([np.array(result.lengths, dtype=np.int64) for result in results])
        offsets = np.append(0, np.cumsum(lengths[lengths > 0]))
        beside = self.files(path)[1]
        np.save(beside, offsets)
        facts = {"size": list(shape[1:3]), "offsets": zlib.crc32(offsets.data)}
        if not missing:
            return [result.checksum for result in results], facts
        found, size = self.open(path, facts, ()), results[0].count
        blocks = (slice(first, min(first + size, len(found))) for first in range(0, len(found), size))
        return [zlib.crc32(found.encoded(rows).data) for rows in blocks], facts

    def open(self, path: Path, header: dict[str, Any], names: Sequence[str]) -> Jpegs:
        """Open a store.

        Raises:
            OSError, ValueError, KeyError, TypeError: it is not whole.
        """
        offsets = np.array(map_array(self.files(path)[1]))
        if offsets.dtype != np.int64 or offsets.ndim != 1 or zlib.crc32(offsets.data) != header["offsets"]:
            raise ValueError("the offsets are damaged")
        if offsets[-1] != path.stat().st_size:
            raise ValueError("it is not as long as it was")
        height, width = header["size"]
        return Jpegs(path, offsets, (int(height), int(width)), names)

    def block(self, pixels: Any, rows: slice) -> tuple[npt.NDArray[np.uint8], list[int]]:
        """Give the bytes of neighbouring images, and how many each has."""
        return pixels.encoded(rows), np.diff(pixels.offsets[rows.start : rows.stop + 1]).tolist()


def encode(start: int, pixels: PixelArray, bad: Iterable[int]) -> Kept:
    """Encode a block, uint8 (b, h, w, 3), whose first image is ``start``; the ``bad`` ones get no bytes."""
    left_out = set(bad)
    images = [b"" if start + row in left_out else _jpeg(image) for row, image in enumerate(pixels)]
    data = b"".join(images)
    return zlib.crc32(data), [*map(len, images)], data


def _jpeg(pixels: PixelArray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
    return stream.getvalue()
