"""Every kind of image file: read rightly where it can be, refused by name where not."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from icsr_cli.datasets.scan import image_files
from icsr_cli.errors import DatasetError
from icsr_cli.images.decode import MAX_PIXELS, decode, decode_resized


@pytest.fixture
def picture():
    """uint8 (6, 4, 3), every pixel its own colour."""
    return np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def saved(image, path, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "A.PNG", "ü 漢.png", "b.bmp", "c.tif", "d.webp", "e.ppm"])
def test_rgb_is_read_as_it_is(picture, name, tmp_path):
    options = {"lossless": True} if name.endswith("webp") else {}
    path = tmp_path / name
    Image.fromarray(picture).save(path, Image.registered_extensions()[path.suffix.lower()], **options)
    result = decode(path)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, picture)
    np.testing.assert_array_equal(decode(str(path)), picture)


def test_jpeg_is_what_pillow_decodes(picture, tmp_path):
    path = saved(Image.fromarray(picture), tmp_path / "a.JPG", format="JPEG")
    np.testing.assert_array_equal(decode(path), np.asarray(Image.open(path)))


def test_grey_and_bilevel(picture, tmp_path):
    grey = picture[..., 0]
    expected = np.stack([grey] * 3, axis=-1)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(grey), tmp_path / "a.png")), expected)
    black = Image.fromarray(grey).point(lambda value: 255 * (value > 127), "1")
    np.testing.assert_array_equal(decode(saved(black, tmp_path / "b.png")), (expected > 127) * np.uint8(255))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_not_cut(suffix, tmp_path):
    values = np.array(
        [[0, 1, 128, 129], [256, 257, 32768, 65535], [65278, 65407, 65408, 514]], dtype=np.uint16
    )
    result = decode(saved(Image.fromarray(values), tmp_path / f"a.{suffix}"))
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(result, np.stack([expected] * 3, axis=-1))
    if suffix == "png":
        expected[1, 1] = 255  # 257; 256 is another, though the same in 8 bits
        clear = saved(Image.fromarray(values), tmp_path / "b.png", transparency=257)
        np.testing.assert_array_equal(decode(clear)[..., 0], expected)


def test_16_bit_colour(tmp_path):
    rows = b"".join(b"\0" + struct.pack(">6H", 0, 32768, 65535, 65535, 256, 0) for _ in range(2))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert decode(tmp_path / "a.png")[1].tolist() == [[0, 128, 255], [255, 1, 0]]


def test_cmyk(tmp_path):
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decode(saved(ink, tmp_path / "a.jpg", quality=95))
    assert red.shape == (8, 8, 3)
    assert (red[..., 0] > 240).all()
    assert (red[..., 1:] < 15).all()


def test_palette_with_and_without_transparency(picture, tmp_path):
    image = Image.fromarray(picture).quantize(24)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(saved(image, tmp_path / "a.png")), expected)
    clear = int(np.asarray(image)[0, 0])
    shown = decode(saved(image, tmp_path / "b.png", transparency=clear))
    expected = expected.copy()
    expected[np.asarray(image) == clear] = 255
    np.testing.assert_array_equal(shown, expected)


def test_what_is_transparent_lies_on_white(picture, tmp_path):
    alpha = np.zeros((6, 4, 1), dtype=np.uint8)
    alpha[:3], alpha[3] = 255, 128
    path = saved(Image.fromarray(np.concatenate([picture, alpha], axis=2)), tmp_path / "a.png")
    result = decode(path).astype(int)
    np.testing.assert_array_equal(result[:3], picture[:3])
    np.testing.assert_array_equal(result[4:], 255)
    np.testing.assert_allclose(result[3], picture[3] * (128 / 255) + 255 * (127 / 255), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_turned_by_exif(picture, orientation, suffix, tmp_path):
    turned = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, -1),
        7: picture.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(picture, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(Image.fromarray(picture), tmp_path / f"a.{suffix}", exif=exif, **options)
    np.testing.assert_array_equal(decode(path), turned)


def test_turned_jpeg(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.fromarray(picture), tmp_path / "a.jpg", exif=exif)
    np.testing.assert_array_equal(decode(path), np.rot90(np.asarray(Image.open(path)), -1))
    assert decode_resized(path, 6, 4).shape == (6, 4, 3)


def test_first_of_several_frames(picture, tmp_path):
    first, second = Image.fromarray(picture), Image.fromarray(255 - picture)
    path = saved(first, tmp_path / "a.tif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(path), picture)


@pytest.mark.parametrize("size", [(12, 8), (3, 2), (6, 4), (256, 128)])
def test_resized_as_torchvision_resizes(size, tmp_path):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    picture = np.random.default_rng(1).integers(0, 256, (61, 23, 3), dtype=np.uint8)
    path = saved(Image.fromarray(picture), tmp_path / "a.jpg")
    expected = resize(Image.open(path), list(size), InterpolationMode.BICUBIC)
    np.testing.assert_array_equal(decode_resized(path, *size), np.asarray(expected))


def garbage(path, content):
    path.write_bytes(content)
    return path


def jpeg_bytes(path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 32, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


def test_truncated(tmp_path):
    for suffix in ("jpg", "png", "webp", "bmp"):
        content = jpeg_bytes(tmp_path / f"whole.{suffix}")
        for keep in (0.1, 0.5, 0.95):
            path = garbage(tmp_path / f"cut.{suffix}", content[: int(keep * len(content))])
            with pytest.raises(DatasetError, match=f"cut.{suffix}: "):
                decode(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello, this is no image", "not an image"),
        (b"\xff\xd8\xff", "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_no_image(content, reason, tmp_path):
    with pytest.raises(DatasetError, match=f"a.jpg: .*{reason}"):
        decode(garbage(tmp_path / "a.jpg", content))


def test_a_bomb_is_refused_unopened(tmp_path):
    bomb = Image.new("1", (20_000, 20_000))
    path = saved(bomb, tmp_path / "bomb.png")
    assert path.stat().st_size < 100_000
    with pytest.raises(DatasetError, match=f"bomb.png: .*more than {MAX_PIXELS:,}"):
        decode_resized(path, 8, 4)
    path = saved(Image.new("1", (8001, 8000)), tmp_path / "big.png")
    with pytest.raises(DatasetError, match=r"big.png: 8001 x 8000 pixels, more than"):
        decode(path)


@pytest.mark.parametrize("kind", ["directory", "missing", "dangling", "pipe"])
def test_what_is_no_file(kind, tmp_path):
    path = tmp_path / "a.jpg"
    if kind == "directory":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to(tmp_path / "gone")
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(DatasetError, match=r"a.jpg: (not a file|no such file)"):
        decode(path)
    assert image_files(tmp_path) == (["a.jpg"] if kind in ("dangling", "pipe") else [])  # named, not lost


def test_unreadable(picture, tmp_path):
    path = saved(Image.fromarray(picture), tmp_path / "a.png")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(DatasetError, match="permission denied"):
        decode(path)


def test_unreadable_for_anybody(picture, tmp_path, monkeypatch):
    path = saved(Image.fromarray(picture), tmp_path / "a.png")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(DatasetError, match=r"a.png: permission denied"):
        decode(path)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_no_known_range(dtype, tmp_path):
    path = saved(Image.fromarray(np.full((3, 3), 70_000, dtype=dtype)), tmp_path / "a.tif")
    with pytest.raises(DatasetError, match=r"a.tif: .*no known range"):
        decode(path)
