"""The zip stream, read back by Python's zipfile; also where zip64 is needed, and by a reader that cannot seek."""

from __future__ import annotations

import io
import struct
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.kit.zip_stream import (
    Member,
    directory_entry,
    end,
    local_header,
    member,
    zip_stream,
)

THEN = datetime(2026, 1, 31, 13, 14, 16, tzinfo=UTC)


def test_what_goes_in_comes_out() -> None:
    data = b"".join(zip_stream([member("a/ü.txt", b"one", modified=THEN), member("b", b"", modified=THEN)]))
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    assert archive.namelist() == ["a/ü.txt", "b"]
    assert archive.read("a/ü.txt") == b"one"
    info = archive.getinfo("a/ü.txt")
    assert info.date_time == (2026, 1, 31, 13, 14, 16)
    assert info.compress_type == zipfile.ZIP_STORED
    assert info.external_attr >> 16 == 0o100644


@given(st.lists(st.binary(max_size=300), max_size=8))
@settings(max_examples=30, deadline=None)
def test_any_members_survive(contents: list[bytes]) -> None:
    data = b"".join(zip_stream(member(f"{n}.bin", each, modified=THEN) for n, each in enumerate(contents)))
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert [archive.read(f"{n}.bin") for n in range(len(contents))] == contents


def test_headers_alone_are_enough_for_a_reader_that_cannot_seek() -> None:
    stream = io.BytesIO(b"".join(zip_stream(member(f"{n}", bytes([n]) * n, modified=THEN) for n in range(5))))
    for n in range(5):
        signature, _, flags, method, _, _, _, packed, size, name_length, extra_length = struct.unpack(
            "<4s5H3L2H", stream.read(30)
        )
        assert (signature, flags & 8, method, packed, size) == (b"PK\3\4", 0, 0, n, n)
        assert stream.read(name_length + extra_length) == str(n).encode()
        assert stream.read(size) == bytes([n]) * n


def test_more_members_than_sixteen_bits_count() -> None:
    data = b"".join(zip_stream(member(f"{n:08d}", b"", modified=THEN) for n in range(65_540)))
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert len(archive.namelist()) == 65_540
    assert archive.read("00065539") == b""


def test_offsets_beyond_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "far.zip"
    five_gigabytes = 5 * 2**30
    with path.open("wb") as file:
        file.seek(five_gigabytes)  # a hole, which takes no room on disk
        for piece in zip_stream([member("far", b"away", modified=THEN)], offset=five_gigabytes):
            file.write(piece)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("far").header_offset == five_gigabytes
        assert archive.read("far") == b"away"


def test_members_of_four_gigabytes_and_more(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    sizes = {"most": 2**32 - 2, "least": 2**32 - 1, "large": 5 * 2**30}
    directory = b""
    with path.open("wb") as file:
        for name, size in sizes.items():
            large = Member(name, THEN, size, 0, ())
            directory += directory_entry(large, file.tell())
            file.write(local_header(large))
            file.seek(size, 1)  # a hole, which takes no room on disk
        small = member("small", b"behind them", modified=THEN)
        directory += directory_entry(small, file.tell())
        file.write(local_header(small) + b"behind them")
        position = file.tell()
        file.write(directory + end(4, len(directory), position))
    with zipfile.ZipFile(path) as archive:
        assert {info.filename: info.file_size for info in archive.infolist()} == {**sizes, "small": 11}
        assert archive.read("small") == b"behind them"
        for name in sizes:
            # opening compares the header before the bytes with the directory
            with archive.open(name) as opened:
                assert opened.read(1000) == bytes(1000)
    # the header alone tells the size, to a reader that cannot seek
    header = local_header(Member("large", THEN, sizes["large"], 0, ()))
    assert struct.unpack("<2H2Q", header[-20:]) == (1, 16, sizes["large"], sizes["large"])


def test_a_member_that_is_not_what_it_said_is_refused() -> None:
    with pytest.raises(ValueError, match="came with 2 bytes"):
        b"".join(zip_stream([Member("a", THEN, 3, 0, [b"xy"])]))
