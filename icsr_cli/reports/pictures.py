"""Pictures inside a page: small JPEGs as ``data:`` addresses, so that the page asks nobody for anything."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from icsr_cli.pixels import Stored

#: Longest side of a picture in a page, in pixels; smaller ones stay as they are.
LONGEST: Final = 128
_QUALITY: Final = 82


@dataclass(frozen=True)
class Thumbnail:
    """A picture ready for a page: its ``data:`` address and its size in pixels."""

    uri: str
    width: int
    height: int


class Pictures:
    """Thumbnails of a split's images by their paths; each is encoded when it is asked for.

    ``paths`` (n,) and ``pixels`` uint8 (n, h, w, 3), RGB, those of a store for instance, are in one order.
    """

    def __init__(self, paths: Sequence[str], pixels: Stored) -> None:
        self._rows = {path: row for row, path in enumerate(paths)}
        self._pixels = pixels

    def get(self, path: str) -> Thumbnail | None:
        """Give the picture of an image, None where the data set does not have it."""
        row = self._rows.get(path)
        return None if row is None else thumbnail(self._pixels[row])


def thumbnail(pixels: npt.NDArray[Any]) -> Thumbnail:
    """Encode uint8 (h, w, 3), RGB, as a JPEG whose longest side is ``LONGEST`` at most."""
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{text}", image.width, image.height)
