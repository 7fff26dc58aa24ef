"""The picture of a ranking: size, frames, captions."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFont

from icsr_cli.errors import UsageError
from icsr_cli.reports.ranking_picture import Crop, draw_rankings, shorten, shorten_path, write_ranking_picture


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "person.png"
    Image.new("RGB", (64, 128), "#336699").save(path)
    return path


def colours(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in picture.getcolors(1 << 24) or ()}  # type: ignore[misc]


BLUE, GREEN, RED = (0x1F, 0x4F, 0xD8), (0x1A, 0x7F, 0x37), (0xC6, 0x28, 0x28)


def test_query_right_and_wrong_are_framed(image: Path) -> None:
    plain = draw_rankings([[Crop(image, "q"), Crop(image, "a")]])
    assert BLUE in colours(plain)
    assert not {GREEN, RED} & colours(plain)
    judged = draw_rankings([[Crop(image, "q"), Crop(image, "a", right=True), Crop(image, "b", right=False)]])
    assert {BLUE, GREEN, RED, (0x33, 0x66, 0x99)} <= colours(judged)


def test_answers_go_on_below_and_queries_below_each_other(image: Path) -> None:
    answers = tuple(Crop(image, f"{number}.png", ("camera 1", "0.5")) for number in range(25))
    ten = draw_rankings([[Crop(image, "q"), *answers[:10]]])
    many = draw_rankings([[Crop(image, "q"), *answers]])
    two = draw_rankings([[Crop(image, "q"), *answers[:10]]] * 2)
    assert ten.width == many.width == two.width
    assert two.height < 2 * ten.height < many.height
    few = draw_rankings([[Crop(image, "q"), answers[0]], [Crop(image, "r")]])
    assert few.width < ten.width


def test_any_shape_of_image_and_a_missing_one(tmp_path: Path, image: Path) -> None:
    wide, thin = tmp_path / "wide.png", tmp_path / "thin.png"
    Image.new("RGB", (900, 3), "#ff0000").save(wide)
    Image.new("L", (1, 900), 90).save(thin)
    picture = draw_rankings(
        [[Crop(image, "q"), Crop(wide, "w"), Crop(thin, "t"), Crop(tmp_path / "gone.png", "g")]]
    )
    assert (255, 0, 0) in colours(picture)
    assert (90, 90, 90) in colours(picture)


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("JPG", "JPEG"), ("webp", "WEBP")])
def test_formats(tmp_path: Path, image: Path, suffix: str, kind: str) -> None:
    path = tmp_path / "new" / f"ranking.{suffix}"
    write_ranking_picture(path, [[Crop(image, "q")]])
    with Image.open(path) as picture:
        assert picture.format == kind
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_unknown_format_is_refused(tmp_path: Path, image: Path) -> None:
    with pytest.raises(UsageError, match=r"\.gif"):
        write_ranking_picture(tmp_path / "a.gif", [[Crop(image, "q")]])
    assert not (tmp_path / "a.gif").exists()


@pytest.mark.parametrize(("suffix", "queries"), [("webp", 60), ("jpg", 220)])
def test_a_picture_too_large_for_its_format(tmp_path: Path, image: Path, suffix: str, queries: int) -> None:
    rows = [[Crop(image, "q")]] * queries
    with pytest.raises(UsageError, match=r"Let it end in \.png, or ask for fewer"):
        write_ranking_picture(tmp_path / f"a.{suffix}", rows)


def test_long_names_lose_their_middle() -> None:
    font = ImageFont.load_default(size=15)
    assert shorten("short.jpg", font, 128) == "short.jpg"
    short = shorten("0123456789_a_very_long_name_of_an_image.jpg", font, 128)
    assert font.getlength(short) <= 128
    assert short.startswith("0123")
    assert short.endswith(".jpg")
    assert "…" in short
    assert shorten("anything", font, 1) == "…"


def test_letters_that_the_font_has_not_are_escaped(image: Path) -> None:
    def drawn(line: str) -> bytes:
        return draw_rankings([[Crop(image, "q", (line,))]]).tobytes()

    assert drawn("日") == drawn("\\u65e5")
    assert drawn("日") != drawn("本")
    assert drawn("a\udcff") == drawn("a\\udcff")
    assert drawn("a\nb") == drawn("a\\nb")


def test_of_a_path_its_end_is_shown() -> None:
    font = ImageFont.load_default(size=15)
    assert shorten_path("c1/000.jpg", font, 128) == "c1/000.jpg"
    short = shorten_path("a/folder/of/cameras/c1/000.jpg", font, 128)
    assert font.getlength(short) <= 128
    assert short.startswith("…")
    assert short.endswith("/c1/000.jpg")
    name = "0123456789_a_very_long_name_of_an_image.jpg"
    assert shorten_path(f"c1/{name}", font, 128) == shorten(name, font, 128)
    assert shorten_path("c1/000.jpg", font, 1) == "…"
