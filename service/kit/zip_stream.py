"""A streamed zip file: members go in one at a time, bytes come out, only the directory is kept in memory.

Members are stored, not deflated: PNG does not shrink. Each follows a header that already has its size and checksum, so
that readers which cannot seek can read the file too; Python's own ``zipfile``, writing to a stream, puts them behind
the member, where a stored member's end cannot be found. Zip64 where counts and offsets ask for it (APPNOTE 4.3, 4.5.3).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_UTF8_NAMES = 0x800
_STORED = 0
_MADE_ON_UNIX = 3 << 8
_FILE_0644 = 0o100644 << 16
_MAX16 = 0xFFFF
_MAX32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Member:
    """A file in the zip. ``pieces`` are its bytes, ``size`` bytes with checksum ``crc32`` in all."""

    name: str
    modified: datetime
    size: int
    crc32: int
    pieces: Iterable[bytes]


def member(name: str, data: bytes, *, modified: datetime) -> Member:
    """A file whose bytes are in memory."""
    return Member(name, modified, len(data), zlib.crc32(data), (data,))


def zip_stream(members: Iterable[Member], *, offset: int = 0) -> Generator[bytes, None, None]:
    """The bytes of a zip file of ``members``; ``offset`` bytes stand before it in the same file.

    Raises ValueError for a member that is not what it said it was.
    """
    directory = bytearray()
    count = 0
    position = offset
    for item in members:
        head = local_header(item)
        yield head
        yield from contents(item)
        directory += directory_entry(item, position)
        count += 1
        position += len(head) + item.size
    yield bytes(directory)
    yield end(count, len(directory), position)


def local_header(item: Member) -> bytes:
    """The local header of a member."""
    large = item.size >= _MAX32
    extra = struct.pack("<2H2Q", 1, 16, item.size, item.size) if large else b""
    name = item.name.encode()
    return _LOCAL.pack(b"PK\3\4", _version(large), *_fixed(item, name), len(extra)) + name + extra


def contents(item: Member) -> Iterator[bytes]:
    """A member's bytes. Raises ValueError if their size or checksum is not the announced one."""
    size, crc32 = 0, 0
    for piece in item.pieces:
        size, crc32 = size + len(piece), zlib.crc32(piece, crc32)
        yield piece
    if (size, crc32) != (item.size, item.crc32):
        raise ValueError(f"{item.name} came with {size} bytes and checksum {crc32}, not {item.size} and {item.crc32}")


def directory_entry(item: Member, position: int) -> bytes:
    """The directory entry of the member whose header is at ``position``."""
    far = [item.size, item.size] if item.size >= _MAX32 else []
    far += [position] if position >= _MAX32 else []
    extra = struct.pack(f"<2H{len(far)}Q", 1, 8 * len(far), *far) if far else b""
    name = item.name.encode()
    version = _version(bool(far))
    fixed = _CENTRAL.pack(
        b"PK\1\2",
        _MADE_ON_UNIX | version,
        version,
        *_fixed(item, name),
        len(extra),
        0,
        0,
        0,
        _FILE_0644,
        min(position, _MAX32),
    )
    return fixed + name + extra


def _version(zip64: bool) -> int:
    return 45 if zip64 else 20


def _fixed(item: Member, name: bytes) -> tuple[int, ...]:
    """The fields that both headers have in the same order, from the flags to the name's length."""
    size = min(item.size, _MAX32)
    return (_UTF8_NAMES, _STORED, *_dos_moment(item.modified), item.crc32, size, size, len(name))


def end(count: int, size: int, position: int) -> bytes:
    """The records that close the file, for a directory of ``count`` entries and ``size`` bytes at ``position``."""
    end = _END.pack(
        b"PK\5\6", 0, 0, min(count, _MAX16), min(count, _MAX16), min(size, _MAX32), min(position, _MAX32), 0
    )
    if count < _MAX16 and size < _MAX32 and position < _MAX32:
        return end
    end64 = _END64.pack(b"PK\6\6", _END64.size - 12, _MADE_ON_UNIX | 45, 45, 0, 0, count, count, size, position)
    return end64 + _LOCATOR64.pack(b"PK\6\7", 0, position + size, 1) + end


def _dos_moment(moment: datetime) -> tuple[int, int]:
    """Time and date as MS-DOS counts them: in steps of 2 s, from 1980 on."""
    year = min(max(moment.year, 1980), 2107)
    return (
        moment.hour << 11 | moment.minute << 5 | moment.second // 2,
        (year - 1980) << 9 | moment.month << 5 | moment.day,
    )
