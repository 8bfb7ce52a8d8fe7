"""What an archive says about itself, bounded before it is read: a zip's directory, and a tar's headers.

``zipfile`` lists all entries at once, and ``tarfile`` reads a header of any stated length into memory.
"""

from __future__ import annotations

import os
import struct
import tarfile
from pathlib import Path
from typing import IO, cast

from service.errors import ArchiveRefused
from service.kit.documents import memory_budget_bytes

_END, _END64, _LOCATOR64, _ENTRY = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"
_END_FIELDS, _END64_FIELDS = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
_LOCATOR_BYTES, _MAX_COMMENT = 20, 1 << 16
_CHUNK_BYTES = 1 << 20
_LISTED_BYTES = 700
"""What zipfile takes for an entry in memory, its name among it."""
_MAX_READ_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 18
"""256 kB: far more than the name and times of a file need."""


def check_zip_directory(archive: Path, max_entries: int) -> None:
    """Raises ArchiveRefused for a zip with more entries than these, or than fit into memory."""
    with open(archive, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail_at = max(0, size - _MAX_COMMENT - _END_FIELDS.size)
        file.seek(tail_at)
        tail = file.read()
        place = tail.rfind(_END)
        if place < 0 or len(tail) - place < _END_FIELDS.size:
            return  # zipfile says what is wrong with it
        directory_bytes, end = _END_FIELDS.unpack_from(tail, place)[5], tail_at + place
        # where there is a record of 64 bits, zipfile believes it
        record_at = end - _LOCATOR_BYTES - _END64_FIELDS.size
        if record_at >= 0:
            file.seek(record_at)
            record = file.read(_END64_FIELDS.size + _LOCATOR_BYTES)
            if record.startswith(_END64) and record[_END64_FIELDS.size :].startswith(_LOCATOR64):
                directory_bytes, end = _END64_FIELDS.unpack_from(record)[8], record_at
        count = _count(file, max(0, end - directory_bytes), end)
    cost = directory_bytes + _LISTED_BYTES * count
    if count > max_entries or cost > memory_budget_bytes():
        raise ArchiveRefused(
            f"the archive lists {count} entries in {directory_bytes} bytes; the limit is {max_entries}. Divide it"
        )


def _count(file: IO[bytes], start: int, end: int) -> int:
    file.seek(start)
    count, left, last = 0, end - start, b""
    while left > 0 and (piece := file.read(min(_CHUNK_BYTES, left))):
        left -= len(piece)
        count += (last + piece).count(_ENTRY)
        last = piece[-len(_ENTRY) + 1 :]
    return count


def open_tar(file: IO[bytes]) -> tarfile.TarFile:
    """A tar, its headers bounded; raises what tarfile does."""
    return tarfile.open(fileobj=cast(IO[bytes], BoundedTar(file)), mode="r:")


class BoundedTar:
    """A tar's bytes as tarfile reads them, with a limit on each read, and on all of the headers before a member."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left: int | None = _MAX_HEADER_BYTES

    def before_header(self) -> None:
        """What is read now is headers."""
        self._left = _MAX_HEADER_BYTES

    def after_header(self) -> None:
        """What is read now is a member's contents."""
        self._left = None

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes. Raises ArchiveRefused beyond the limits."""
        most = _MAX_READ_BYTES if self._left is None else self._left
        if not 0 <= size <= most:
            raise ArchiveRefused(
                f"the archive holds a header of {size} bytes or more; the limit is {_MAX_HEADER_BYTES} for each file. "
                "Pack it anew"
            )
        if self._left is not None:
            self._left -= size
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place at which the next read starts."""
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
