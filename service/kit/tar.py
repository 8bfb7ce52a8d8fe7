"""Tar files whose bytes depend on names and contents alone (POSIX ustar; pax headers for names that do not fit)."""

from __future__ import annotations

import tarfile

BLOCK_BYTES = 512
RECORD_BYTES = 20 * BLOCK_BYTES
_PADDING = bytes(BLOCK_BYTES)
_HEADER = b"".join(
    (
        b"%b",  # the name, in 100 bytes
        b"0000644\x000000000\x000000000\x00",  # mode, user, group
        b"%b\x00" + b"00000000000\x00",  # size, time
        b"%06o\x00 ",  # checksum
        b"0".ljust(101, b"\0") + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\x00" + bytes(167),
    )
)
_CONSTANT_SUM = sum(_HEADER % (b"", b"", 0)) - sum(b"000000\x00 ") + 8 * ord(" ")
"""The share of every header's checksum that comes from its constant parts; the checksum field counts as spaces."""


def members(*files: tuple[str, bytes]) -> bytes:
    """Files (name, contents) as tar members: header, contents, padding. Mode 0644, no owner, no time."""
    return b"".join([part for name, data in files for part in (header(name, len(data)), data, padding(len(data)))])


def padding(size: int) -> bytes:
    """What follows the ``size`` bytes of a member, up to a whole block."""
    return _PADDING[: -size % BLOCK_BYTES]


def member_bytes(size: int) -> int:
    """The bytes of a member with a plain name and ``size`` bytes of contents: header, contents and padding."""
    return BLOCK_BYTES + size + -size % BLOCK_BYTES


def end(size: int) -> bytes:
    """The end of a tar of ``size`` bytes: two empty blocks, and zeros up to a whole record."""
    return bytes(2 * BLOCK_BYTES + -(size + 2 * BLOCK_BYTES) % RECORD_BYTES)


def header(name: str, size: int) -> bytes:
    """The header of a member; its contents and padding follow."""
    encoded = name.encode()
    if len(encoded) > 100 or not name.isascii():
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.PAX_FORMAT)
    # tarfile's headers take longer than everything else an item needs, so the common case is written here
    length = b"%011o" % size
    checksum = _CONSTANT_SUM + sum(encoded) + sum(length)
    return _HEADER % (encoded.ljust(100, b"\0"), length, checksum)
