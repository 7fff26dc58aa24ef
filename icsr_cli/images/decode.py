"""One image file -> RGB pixels, whatever its mode, or an error that names the file."""

import os
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from icsr_cli.errors import DatasetError
from icsr_cli.types import PixelArray

#: Images of more pixels are refused before they are decoded; a crop of a person has a few thousand.
MAX_PIXELS = 64_000_000
#: What is opened. Others (EPS, which runs a program; PSD; ...) are no images of cameras.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_WHITE = (255, 255, 255, 255)
_TURN_KEYS = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})


def decode(path: str | os.PathLike[str]) -> PixelArray:
    """Decode an image file to uint8 (h, w, 3), RGB.

    Grey, palette and CMYK are converted; 16-bit grey is scaled to 8 bits; what is transparent lies on
    white; an image turned by its EXIF orientation is turned back; of several frames the first is taken.
    Raises DatasetError where the file cannot be read, is no image, is cut off, or has more than
    ``MAX_PIXELS`` pixels.
    """
    return np.asarray(_open_rgb(path))


def decode_resized(path: str | os.PathLike[str], height: int, width: int) -> PixelArray:
    """Decode as ``decode`` does and resize to uint8 (height, width, 3).

    Bicubic with antialiasing, by Pillow: the same pixels as torchvision's Resize on a PIL image.
    """
    image = _open_rgb(path)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def resized_or_reason(path: str | os.PathLike[str], height: int, width: int) -> PixelArray | str:
    """Decode as ``decode_resized`` does; give the reason, without the path, where it cannot be."""
    try:
        return decode_resized(path, height, width)
    except DatasetError as error:
        return str(error).removeprefix(f"{os.fspath(path)}: ")


def _open_rgb(path: str | os.PathLike[str]) -> Image.Image:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would be waited on for ever
            raise ValueError("not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is refused, or converted, below
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
                image.load()
                return _to_rgb(_upright(image))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise DatasetError(f"{os.fspath(path)}: {_reason(path, error)}") from error


def _reason(path: str | os.PathLike[str], error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if Path(path).stat().st_size == 0 else "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    # Asking each file for its EXIF costs more than decoding a crop; most carry none.
    if image.format == "TIFF" or not _TURN_KEYS.isdisjoint(image.info):
        return ImageOps.exif_transpose(image)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode == "F":
        raise ValueError("floating point pixels have no known range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values: npt.NDArray[Any] = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65_535):
        raise ValueError("32-bit pixels have no known range")
    grey = ((values * 255 + 32_767) // 65_535).astype(np.uint8)
    if "transparency" in image.info:  # the value that is clear
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")
