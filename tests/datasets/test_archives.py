"""Archives that climb out, lie, or are cut off: refused, and nothing is left of them."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from icsr_cli.datasets import archives
from icsr_cli.datasets.archives import unpack
from icsr_cli.errors import DatasetError

CLIMBERS = ["../evil.jpg", "a/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "C:/evil.jpg"]


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def tar_of(path: Path, members: list[tarfile.TarInfo], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 1000 if kind == tarfile.REGTYPE else 0
    return info


def refused(archive: Path, match: str) -> None:
    """Unpacking fails with ``match``, and there is nothing in or beside the target."""
    home = archive.parent / "inner"
    home.mkdir()
    before = sorted(path for path in archive.parent.rglob("*"))
    with pytest.raises(DatasetError, match=match):
        unpack(archive, home / "target")
    assert sorted(path for path in archive.parent.rglob("*")) == before
    assert not Path("/tmp/evil.jpg").exists()


@pytest.mark.parametrize("name", CLIMBERS)
def test_a_zip_that_climbs_out(name, tmp_path):
    refused(zip_of(tmp_path / "a.zip", {"good.jpg": b"x", name: b"x"}), "leads out of the folder")


@pytest.mark.parametrize("name", CLIMBERS)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_climbs_out(name, mode, tmp_path):
    archive = tar_of(tmp_path / "a.tar", [member("good.jpg"), member(name)], mode)
    refused(archive, "leads out of the folder")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
    ids=["symlink", "hardlink", "char", "block", "fifo"],
)
def test_a_tar_with_links_or_devices(kind, tmp_path):
    outside = tmp_path / "secret.jpg"
    outside.write_text("secret")
    members = [member("good.jpg"), member("x.jpg", kind, str(outside))]
    refused(tar_of(tmp_path / "a.tar.gz", members, "w:gz"), "'x.jpg': it is a link or a device")


def test_writing_through_a_link(tmp_path):
    (tmp_path / "out").mkdir()
    members = [member("d", tarfile.SYMTYPE, str(tmp_path / "out")), member("d/evil.jpg")]
    refused(tar_of(tmp_path / "a.tar", members), "link or a device")


def test_a_zip_with_a_link(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("x.jpg")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", "link or a device")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_a_truncated_archive(suffix, keep, tmp_path):
    names = [f"f/{number}.jpg" for number in range(20)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "zip":
        zip_of(path, {name: os.urandom(1000) for name in names})
    else:
        with tarfile.open(path, "w:gz" if suffix.endswith("gz") else "w") as archive:
            for name in names:
                archive.addfile(member(name), io.BytesIO(os.urandom(1000)))
    whole = path.read_bytes()
    if suffix == "tar":  # the zeros that pad the end of a tar may go
        whole = whole.rstrip(b"\0")
    path.write_bytes(whole[: int(len(whole) * keep)])
    refused(path, "truncated or damaged")


def test_a_tar_cut_between_two_members(tmp_path):
    path = tar_of(tmp_path / "a.tar", [member("1.jpg"), member("2.jpg"), member("3.jpg")])
    path.write_bytes(path.read_bytes()[: 2 * (512 + 1024)])
    refused(path, "truncated or damaged")


def test_a_tar_with_a_broken_header(tmp_path):
    path = tar_of(tmp_path / "a.tar", [member("1.jpg"), member("2.jpg"), member("3.jpg")])
    content = bytearray(path.read_bytes())
    content[1536:1600] = b"\xff" * 64
    path.write_bytes(content)
    refused(path, "truncated or damaged")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_a_tar_of_too_many_members(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_SLACK", 0)
    empty = [member(f"{number}", kind) for number in range(1000)]
    for one in empty:
        one.size = 0
    path = tar_of(tmp_path / "a.tar.gz", empty, "w:gz")
    assert 512 * len(empty) > 10 * path.stat().st_size
    with pytest.raises(DatasetError, match="holds more than 10 times its size"):
        unpack(path, tmp_path / "target", expansion=10)


def test_a_zip_counts_members_without_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_SLACK", 0)
    path = zip_of(tmp_path / "a.zip", {f"{number}/": b"" for number in range(100)})
    with pytest.raises(DatasetError, match="holds more than 3 times its size"):
        unpack(path, tmp_path / "target", expansion=3)


def test_a_tar_of_headers_of_headers(tmp_path):
    header = member("a", tarfile.XHDTYPE)
    header.size = 9
    one = header.tobuf(tarfile.USTAR_FORMAT) + b"9 a=bcde\n".ljust(512, b"\0")
    path = tar_of(tmp_path / "a.tar", [member("1.jpg")])
    path.write_bytes(one * 3000 + path.read_bytes())
    refused(path, "truncated or damaged")


def test_a_zip_with_a_flipped_byte(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.jpg", b"x" * 1000)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    refused(path, "truncated or damaged")


@pytest.mark.parametrize("suffix", ["zip", "tar", "file and folder", "folder and file"])
def test_a_name_that_comes_twice(suffix, tmp_path):
    if suffix == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("1.jpg", b"x")
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("1.jpg", b"y")
        path = tmp_path / "a.zip"
    else:
        folder = member("1.jpg", tarfile.DIRTYPE)
        first = folder if suffix == "folder and file" else member("1.jpg")
        second = folder if suffix == "file and folder" else member("./1.jpg")
        path = tar_of(tmp_path / "a.tar", [first, second])
    refused(path, "the name comes twice")


def test_an_encrypted_zip(tmp_path):
    path = zip_of(tmp_path / "a.zip", {"1.jpg": b"x"})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "encrypted")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is no archive"),
        (b"hello", "is no archive"),
        (b"Rar!\x1a\x07\x01\x00", "is a rar archive"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        (b"PK\x03\x04 and nothing", "truncated or damaged"),
        (b"\x1f\x8b\x08\x00 and nothing", "truncated or damaged"),
    ],
)
def test_what_is_no_archive(content, match, tmp_path):
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", match)


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_and_an_interrupt_leave_nothing(fault, tmp_path, monkeypatch):
    path = zip_of(tmp_path / "a.zip", {f"{number}.jpg": b"x" * 100 for number in range(5)})
    written = []

    def fail(content, target, size):
        written.append(target)
        if len(written) == 3:
            raise fault
        target.write_bytes(b"x")

    monkeypatch.setattr(archives, "_write", fail)
    with pytest.raises((DatasetError, KeyboardInterrupt)) as caught:
        unpack(path, tmp_path / "data" / "target")
    assert list((tmp_path / "data").iterdir()) == []
    if isinstance(fault, OSError):
        assert "No space left on device. Nothing was kept" in str(caught.value)


def test_too_little_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    path = zip_of(tmp_path / "a.zip", {"1.jpg": b"x" * 5000})
    usage = archives.shutil.disk_usage(tmp_path)._replace(free=4999)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: usage)
    refused(path, r"needs 5.0 kB more .* 5.0 kB are free")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_good_tars_are_unpacked_whole(mode, tmp_path):
    members = [
        member("d/ü x.jpg"),
        member("d", tarfile.DIRTYPE),
        member("__MACOSX/._x.jpg"),
        member("e/f/1.jpg"),
        member("d", tarfile.DIRTYPE),  # as tar -r adds it
    ]
    target = unpack(tar_of(tmp_path / "a.bin", members, mode), tmp_path / "new" / "target")
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert files == {"d/ü x.jpg", "e/f/1.jpg"}
    assert (target / "e/f/1.jpg").read_bytes() == b"x" * 1000
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header as tar writes it, with a size that tar would not write."""
    info = tarfile.TarInfo(name)
    info.type = kind
    content = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    content[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    content[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(content))[0]
    return bytes(content)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [-1, -512, -(2**40)])
def test_a_tar_with_a_negative_size(kind, size, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(header("1.jpg", size, kind) + b"x" * 512 + header("2.jpg", 0) + bytes(10_240))
    refused(path, "truncated or damaged")


@pytest.mark.parametrize("size", [-1, -512, -1024, -(2**40)])
@pytest.mark.parametrize("name", ["1.jpg", "__MACOSX/1.jpg"])
def test_a_table_of_pax_that_leads_backwards(name, size, tmp_path):
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo(name)
    info.pax_headers = {"size": str(size)}
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(10_240))
    refused(path, "truncated or damaged")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_name_of_gigabytes_is_not_read_into_memory(kind, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(header("1.jpg", 2**33, kind) + bytes(10_240))
    refused(path, "truncated or damaged")


def test_a_long_name_is_read(tmp_path):
    name = "a" * 200 + "/" + "b" * 200 + ".jpg"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as archive:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        assert (unpack(path, tmp_path / f"t{form}") / name).read_bytes() == b"abc"
