"""Archives are unpacked whole or refused; nothing is ever written outside the folder."""

from __future__ import annotations

import io
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from service.datasets.reading.unpacking import UnpackLimits, unpack
from service.errors import ArchiveRefused
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    digests,
    export,
    read,
    scenes,
)

SMALL = UnpackLimits(max_bytes=4 << 20, max_entries=20, max_ratio=50)


def zipped(
    path: Path, *members: tuple[str, bytes], mode: int | None = None, method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if mode is not None:
                info.external_attr = mode << 16
            file.writestr(info, data)
    return path


def tarred(path: Path, *members: tuple[str, bytes], mode: str = "w", **fields: object) -> Path:
    with tarfile.open(path, mode) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


def packed(folder: Path, into: Path, kind: str) -> Path:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    members = [(f"top/{path.relative_to(folder).as_posix()}", path.read_bytes()) for path in files]
    return zipped(into, *members) if kind == "zip" else tarred(into, *members, mode=f"w:{kind[4:]}")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_dataset_comes_out_of_its_archive(tmp_path: Path, kind: str) -> None:
    folder = export(scenes(), SCENE_CLASSES, tmp_path / "set", format="coco")
    archive = packed(folder, tmp_path / f"set.{kind}", kind)
    assert unpack(archive, tmp_path / "out") == len(digests(folder))
    assert digests(tmp_path / "out/top") == digests(folder)
    items, report, _ = read(tmp_path / "out")
    assert report.clean
    assert len(items) == 8


def both(*names: str) -> list[pytest.param]:
    return [pytest.param(make, name, id=f"{make.__name__} {name}") for name in names for make in (zipped, tarred)]


@pytest.mark.parametrize(
    ("make", "name"),
    both(
        "../out.txt",
        "a/../../out.txt",
        "/out.txt",
        "\\out.txt",
        "a\\..\\..\\out.txt",
        "C:out.txt",
        "C:\\out.txt",
        "x/" * 40 + "f",
        "n" * 300,
    ),
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, make: Callable[..., Path], name: str) -> None:
    archive = make(tmp_path / "set.bin", ("good.txt", b"good"), (name, b"bad"))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ArchiveRefused):
        unpack(archive, tmp_path / "deep/er/out", SMALL)
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert new <= {tmp_path / "deep/er/out/good.txt"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_links_or_devices_is_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tarred(tmp_path / "set.tar", ("link", b""), type=kind, linkname="/etc/passwd")
    with pytest.raises(ArchiveRefused, match="a link, a device"):
        unpack(archive, tmp_path / "out", SMALL)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_zip_with_links_or_devices_is_refused(tmp_path: Path, kind: int) -> None:
    archive = zipped(tmp_path / "set.zip", ("link", b"/etc/passwd"), mode=kind | 0o777)
    with pytest.raises(ArchiveRefused, match="a link or device"):
        unpack(archive, tmp_path / "out", SMALL)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "set.zip", ("big", bytes(3 << 20)))
    with pytest.raises(ArchiveRefused, match="times its"):
        unpack(archive, tmp_path / "out", SMALL)
    assert (tmp_path / "out/big").stat().st_size <= 2 << 20


@pytest.mark.parametrize("make", [zipped, tarred])
def test_more_bytes_than_allowed_are_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / "set.bin", *[(f"{number}", bytes(1 << 20)) for number in range(6)])
    limits = UnpackLimits(max_bytes=4 << 20, max_entries=20, max_ratio=1e9)
    with pytest.raises(ArchiveRefused, match="more than 4194304 bytes"):
        unpack(archive, tmp_path / "out", limits)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_more_entries_than_allowed_are_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / "set.bin", *[(f"{number}", b"") for number in range(21)])
    with pytest.raises(ArchiveRefused, match="20"):
        unpack(archive, tmp_path / "out", SMALL)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_name_that_comes_twice_is_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    with pytest.warns(UserWarning, match="Duplicate name") if make is zipped else _nothing():
        archive = (
            make(tmp_path / "set.bin", ("a", b"1"), ("./a", b"2"))
            if make is tarred
            else make(tmp_path / "s", ("a", b"1"), ("a", b"2"))
        )
    with pytest.raises(ArchiveRefused, match="twice"):
        unpack(archive, tmp_path / "out", SMALL)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_file_below_a_file_is_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / "set.bin", ("a", b"1"), ("a/b", b"2"))
    with pytest.raises(ArchiveRefused, match="as a file and as a folder"):
        unpack(archive, tmp_path / "out", SMALL)


def test_damaged_files_and_other_files_are_refused(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "set.zip", ("a", bytes(range(256)) * 40), method=zipfile.ZIP_STORED).read_bytes()
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF
    packed_tar = tarred(tmp_path / "set.tar.gz", ("a", bytes(range(256)) * 40), mode="w:gz").read_bytes()
    for number, data in enumerate(
        [b"", b"PK\3\4 no zip", b"x" * 2000, bytes(flipped), whole[:300], packed_tar[:-20], packed_tar[:60]]
    ):
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(ArchiveRefused):
            unpack(tmp_path / "bad", tmp_path / f"out{number}", SMALL)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_an_archive_cut_off_or_damaged_anywhere_is_refused(tmp_path: Path, mode: str) -> None:
    data = tarred(tmp_path / "set.tar", ("a", bytes(range(256)) * 9), ("b", b"b" * 900), mode=mode).read_bytes()
    for place in range(0, len(data) - 1, 3):
        (tmp_path / "cut").write_bytes(data[:place])
        (tmp_path / "flipped").write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with pytest.raises(ArchiveRefused):
            unpack(tmp_path / "cut", tmp_path / f"cut{place}", SMALL)
        try:
            unpack(tmp_path / "flipped", tmp_path / f"flipped{place}", SMALL)
        except ArchiveRefused:
            continue


def without_utf8_flag(path: Path, *members: tuple[bytes, bytes, bytes]) -> Path:
    """A zip with names of any bytes, as tools write it that do not set the flag: name, contents, extra field."""
    with zipfile.ZipFile(path, "w") as file:
        for number, (name, data, extra) in enumerate(members):
            info = zipfile.ZipInfo(f"{number}".ljust(len(name), "x"))
            info.extra = extra
            file.writestr(info, data)
    packed_zip = path.read_bytes()
    for number, (name, _, _) in enumerate(members):
        packed_zip = packed_zip.replace(f"{number}".ljust(len(name), "x").encode(), name)
    path.write_bytes(packed_zip)
    return path


def test_names_of_a_zip_without_the_flag_of_utf8(tmp_path: Path) -> None:
    old = "Zähler.png".encode("cp437")
    field = bytes([1]) + zlib.crc32(old).to_bytes(4, "little") + "Zähler 2.png".encode()
    stale = bytes([1]) + bytes(4) + b"other.png"
    unicode_path = b"up" + len(field).to_bytes(2, "little") + field
    archive = without_utf8_flag(
        tmp_path / "set.zip",
        ("细胞_ü.png".encode(), b"1", b""),
        (unicodedata.normalize("NFD", "Präparat.png").encode(), b"2", b""),
        (old, b"3", unicode_path),
        ("größe.png".encode("cp437"), b"4", b"up" + len(stale).to_bytes(2, "little") + stale),
    )
    assert unpack(archive, tmp_path / "out", SMALL) == 4
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found == {"细胞_ü.png": b"1", "Präparat.png": b"2", "Zähler 2.png": b"3", "größe.png": b"4"}


def test_a_name_that_leads_out_in_the_unicode_field_is_refused(tmp_path: Path) -> None:
    field = bytes([1]) + zlib.crc32(b"\x84.png").to_bytes(4, "little") + b"../out.png"
    extra = b"up" + len(field).to_bytes(2, "little") + field
    archive = without_utf8_flag(tmp_path / "set.zip", (b"\x84.png", b"", extra))
    with pytest.raises(ArchiveRefused, match="leads out of it"):
        unpack(archive, tmp_path / "out", SMALL)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "set.zip", ("a", b"secret")).read_bytes())
    for offset in (data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8):
        data[offset] |= 1
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(ArchiveRefused, match="encrypted"):
        unpack(tmp_path / "set.zip", tmp_path / "out", SMALL)


def _nothing():
    import contextlib

    return contextlib.nullcontext()
