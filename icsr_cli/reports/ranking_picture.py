"""A picture of rankings: each query framed on the left, its answers after it, nearest first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from icsr_cli.errors import DatasetError, UsageError
from icsr_cli.files import whole_file
from icsr_cli.images.decode import decode

#: What the suffix of the picture may be, and Pillow's name of the format.
FORMATS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
#: Pixels that a format has room for, on each side.
_MOST: Final = {"JPEG": 65_500, "WEBP": 16_383}

_CROP: Final = (128, 256)  # width and height of the box an image is fitted into
_GAP: Final = 14
_FRAME: Final = 4
_FONT: Final = 15
_LINE: Final = 19
#: Answers beside each other; further ones go below.
_PER_LINE: Final = 10

_PAPER, _INK, _FAINT, _BOX = "#ffffff", "#1b1b1f", "#5c5c66", "#ececf0"
_QUERY, _RIGHT, _WRONG = "#1f4fd8", "#1a7f37", "#c62828"


@dataclass(frozen=True)
class Crop:
    """One image and what is written below it: the end of ``title``, a path, and ``lines``.

    ``right`` frames it green or red, None not at all.
    """

    path: Path
    title: str
    lines: tuple[str, ...] = ()
    right: bool | None = None


#: A query, and its answers in order.
RankingRow: TypeAlias = Sequence[Crop]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write_ranking_picture(path: Path, rows: Sequence[RankingRow]) -> None:
    """Draw the rankings and write them as PNG, JPEG or WebP, whole or not at all.

    Raises UsageError where the suffix names another format, or one that the picture is too large for.
    """
    kind = picture_format(path)
    size, most = _measures(rows)[0], _MOST.get(kind)
    if most and max(size) > most:
        raise UsageError(
            f"The picture {path} would be {size[0]:,} x {size[1]:,} pixels; {kind} holds {most:,} a side. "
            "Let it end in .png, or ask for fewer answers (--top) or fewer pictures at a time."
        )
    picture = draw_rankings(rows)
    with whole_file(path) as temporary:
        picture.save(temporary, format=kind)


def picture_format(path: Path) -> str:
    """Give Pillow's name of the format that the suffix stands for. Raises UsageError."""
    if path.suffix.lower() not in FORMATS:
        what = "is a folder" if path.is_dir() else f"ends in {path.suffix or 'nothing'!r}"
        raise UsageError(
            f"The picture {path} {what}; expected a file that ends in one of {', '.join(FORMATS)}."
        )
    return FORMATS[path.suffix.lower()]


def draw_rankings(rows: Sequence[RankingRow]) -> Image.Image:
    """Draw the rankings, one below the other; an image that is gone by now is drawn as an empty box."""
    size, cell = _measures(rows)
    picture = Image.new("RGB", size, _PAPER)
    font = _font()
    top = _GAP
    for row in rows:
        query, *answers = row
        _draw_crop(picture, font, (_GAP, top), query, _QUERY)
        for number, answer in enumerate(answers):
            line, column = divmod(number, _PER_LINE)
            corner = (2 * _GAP + (column + 1) * cell[0], top + line * cell[1])
            frame = {True: _RIGHT, False: _WRONG, None: None}[answer.right]
            _draw_crop(picture, font, corner, answer, frame)
        top += _lines(row) * cell[1]
    return picture


def _font() -> Font:
    """Give a font of many alphabets where the system has it; Pillow's own has unaccented letters alone."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", _FONT)
    except OSError:
        return ImageFont.load_default(size=_FONT)


def _measures(rows: Sequence[RankingRow]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give width and height of the picture, and of the room for each image."""
    columns = min(1 + _PER_LINE, max(map(len, rows), default=1))
    text = 1 + max((len(crop.lines) for row in rows for crop in row), default=0)
    cell = (_CROP[0] + _GAP, _CROP[1] + _LINE * text + 2 * _GAP)
    # The query stands apart from its answers by one more gap.
    return (columns * cell[0] + 2 * _GAP, sum(_lines(row) for row in rows) * cell[1] + _GAP), cell


def _lines(row: RankingRow) -> int:
    return max(1, math.ceil((len(row) - 1) / _PER_LINE))


def _draw_crop(
    picture: Image.Image, font: Font, corner: tuple[int, int], crop: Crop, frame: str | None
) -> None:
    pen = ImageDraw.Draw(picture)
    left, top = corner
    right, bottom = left + _CROP[0], top + _CROP[1]
    pen.rectangle((left, top, right - 1, bottom - 1), fill=_BOX)
    if (image := _fitted(crop.path)) is not None:
        picture.paste(image, (left + (_CROP[0] - image.width) // 2, top + (_CROP[1] - image.height) // 2))
    if frame is not None:
        outside = (left - _FRAME, top - _FRAME, right + _FRAME - 1, bottom + _FRAME - 1)
        pen.rectangle(outside, outline=frame, width=_FRAME)
    below = bottom + _FRAME + 4
    title, *lines = (_in_font(text, font) for text in (crop.title, *crop.lines))
    pen.text((left, below), shorten_path(title, font, _CROP[0]), fill=frame or _INK, font=font)
    for number, line in enumerate(lines, start=1):
        pen.text((left, below + number * _LINE), shorten(line, font, _CROP[0]), fill=_FAINT, font=font)


def _in_font(text: str, font: Font) -> str:
    """Escape what no line can show, and letters that the font has not: all would be the same empty box."""
    box = bytes(font.getmask("\U0010ffff"))
    return "".join(
        one
        if one.isprintable() and bytes(font.getmask(one)) != box
        else one.encode("unicode_escape").decode()
        for one in text
    )


def _fitted(path: Path) -> Image.Image | None:
    try:
        image = Image.fromarray(decode(path))
    except DatasetError:  # it was there when it was embedded
        return None
    scale = min(_CROP[0] / image.width, _CROP[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def shorten(text: str, font: Font, width: int) -> str:
    """Take letters out of the middle until ``text`` is at most ``width`` pixels wide in ``font``."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return "…"


def shorten_path(path: str, font: Font, width: int) -> str:
    """Give as much of the end of ``path`` as is at most ``width`` wide; a longer name is shortened."""
    name = path.rpartition("/")[2]
    if font.getlength(f"…{name}") > width:
        return shorten(name, font, width)
    ends = (path, *(f"…{path[cut:]}" for cut in range(1, len(path))))
    return next(end for end in ends if font.getlength(end) <= width)
