"""Zip parts ``part-00000.zip``, ``part-00001.zip``, ... of whole items, to be unpacked into one folder."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from service.datasets.writing.options import ExportOptions
from service.datasets.writing.state import WriterState
from service.kit.output_file import ExportFile, Spool
from service.kit.zip_stream import (
    Member,
    contents,
    directory_entry,
    end,
    local_header,
)

NO_TIME = datetime(1980, 1, 1)
"""The earliest time that a zip can state: exports hold no timestamps."""


def zip_member(file: ExportFile) -> Member:
    """A file of an export as a member of a zip."""
    checksum = 0
    for piece in file.pieces():
        checksum = zlib.crc32(piece, checksum)
    return Member(file.path, NO_TIME, file.size, checksum, file.pieces())


class ZipParts:
    """Packs files into zips; a part ends with the item that reaches the options' shard_items or shard_bytes."""

    def __init__(self, options: ExportOptions, scratch: Path | None = None) -> None:
        self._max_items, self._max_bytes = options.shard_items, options.shard_bytes
        self._scratch = scratch
        self._finished = 0
        self._items = 0
        self._members = 0
        self._body: Spool | None = None
        self._directory: Spool | None = None

    def add(self, file: ExportFile) -> None:
        """Adds a file to the open part."""
        if self._body is None or self._directory is None:
            self._body, self._directory = Spool(self._scratch), Spool(self._scratch)
        item = zip_member(file)
        self._directory.write(directory_entry(item, self._body.size))
        self._body.write(local_header(item))
        for piece in contents(item):
            self._body.write(piece)
        self._members += 1

    def end_item(self) -> Iterator[ExportFile]:
        """The open part, if the item just added fills it. It must be consumed before another file is added."""
        self._items += 1
        yield from self.pop_full()

    def pop_full(self) -> Iterator[ExportFile]:
        """The open part, if it is full."""
        if self._items >= self._max_items or (self._body is not None and self._body.size >= self._max_bytes):
            yield from self.finish()

    def finish(self) -> Iterator[ExportFile]:
        """The open part, if there is one."""
        if self._body is None or self._directory is None:
            return
        body, directory = self._body, self._directory
        position = body.size
        for piece in directory.pieces():
            body.write(piece)
        body.write(end(self._members, directory.size, position))
        yield body.as_file(f"part-{self._finished:05d}.zip")
        self.close()
        self._finished += 1
        self._items = self._members = 0

    def state(self) -> WriterState:
        """The number of finished parts. No part may be open: a part is packed anew from its first item."""
        assert self._body is None, "state() is only allowed between two parts"
        return WriterState({"finished": self._finished})

    def restore(self, state: WriterState) -> None:
        """Restores the number of finished parts."""
        self._finished = state.values["finished"]

    def close(self) -> None:
        """Frees the disk."""
        for spool in (self._body, self._directory):
            if spool is not None:
                spool.close()
        self._body = self._directory = None
