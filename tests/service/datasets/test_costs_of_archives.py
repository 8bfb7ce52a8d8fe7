"""Archives that are small to send and costly to open are refused before they cost anything."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from service.datasets.reading import unpacking
from service.datasets.reading.unpacking import UnpackLimits, unpack
from service.errors import ArchiveRefused

MANY = UnpackLimits(max_ratio=1e9)


def refused(archive: Path, folder: Path, limits: UnpackLimits = MANY) -> tuple[str, int]:
    """The reason for which an archive is refused, and the most memory that this takes, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveRefused) as caught:
            unpack(archive, folder, limits)
        return caught.value.detail, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def of_many_entries(path: Path, count: int, *, wide: bool) -> Path:
    """A zip with nothing in it but its directory; ``wide``: counted in 64 bits."""
    local = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0x21, 0, 0, 0, 1, 0) + b"a"
    entry = b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0x21, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = len(entry) * count
    with path.open("wb") as file:
        file.write(local)
        start = file.tell()
        for _ in range(count // 1000):
            file.write(entry * 1000)
        end = file.tell()
        if wide:
            file.write(b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, start))
            file.write(b"PK\6\7" + struct.pack("<IQI", 0, end, 1))
        low = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF) if wide else (1, 1, size, start)
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, *low, 0))
    return path


@pytest.mark.parametrize("wide", [True, False], ids=["64 bits", "16 bits, and a number that is not true"])
def test_a_zip_of_many_entries_is_refused_before_they_are_listed(wide: bool, tmp_path: Path) -> None:
    archive = of_many_entries(tmp_path / "a.zip", 300_000, wide=wide)
    reason, memory = refused(archive, tmp_path / "out", UnpackLimits(max_entries=200_000))
    assert reason.startswith("the archive lists 300000 entries")
    assert memory < 16 << 20


def test_files_without_contents_are_few_for_the_size_of_their_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_FREE_ENTRIES", 100)
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb") as file:
        for number in range(2_000):
            file.write(tarfile.TarInfo(f"d{number // 1000}/{number}").tobuf())
        file.write(bytes(1024))
    with pytest.raises(ArchiveRefused, match=r"has more than .* entries; divide it, and leave out empty files"):
        unpack(archive, tmp_path / "out", MANY)
    assert sum(1 for path in (tmp_path / "out").rglob("*")) < 1000


def headers(kind: str, size: int) -> bytes:
    """The start of a tar whose headers before the first file have ``size`` bytes."""
    if kind == "sparse":
        info = tarfile.TarInfo("x")
        info.type = tarfile.GNUTYPE_SPARSE
        first = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        first[482] = 1
        block = bytearray(512)
        block[504] = 1
        first[148:156] = b"%06o\0 " % (sum(first[:148]) + 8 * 32 + sum(first[156:512]))
        return bytes(first) + bytes(block) * (size // 512)
    info = tarfile.TarInfo("x")
    info.type, info.size = {"pax": tarfile.XHDTYPE, "global": tarfile.XGLTYPE, "long name": b"L"}[kind], size
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(size)


@pytest.mark.parametrize("kind", ["pax", "global", "long name", "sparse"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
def test_the_headers_of_a_tar_are_short(kind: str, packed: bool, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    data = headers(kind, 32 << 20) + tarfile.TarInfo("a").tobuf() + bytes(1024)
    archive.write_bytes(gzip.compress(data) if packed else data)
    reason, memory = refused(archive, tmp_path / "out")
    assert "a header of" in reason or "not a readable" in reason
    assert memory < 8 << 20


def small(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(6):
                archive.writestr(f"folder/{number}.txt", f"{number}" * 400)
    else:
        with tarfile.open(fileobj=out, mode=f"w:{kind.removeprefix('tar.')}") as archive:
            for number in range(6):
                info = tarfile.TarInfo(f"folder/{'long' * 40}{number}.txt")
                info.size = 400
                archive.addfile(info, io.BytesIO(b"x" * 400))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_damaged_archive_is_refused_or_read_whatever_is_damaged(kind: str, tmp_path: Path) -> None:
    rng, good = random.Random(7), small(kind.removesuffix(".") if kind == "zip" else kind)
    for number in range(150):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if number % 3 == 0:
            data = data[: rng.randrange(len(data))]
        (tmp_path / "a").write_bytes(data)
        with suppress(ArchiveRefused):
            unpack(tmp_path / "a", tmp_path / f"out{number}", UnpackLimits(max_bytes=1 << 20))
    assert {path.name for path in tmp_path.iterdir()} <= {"a", *(f"out{number}" for number in range(150))}
