"""Destinations for the files of an export: a folder, an object store, a zip stream."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from service.datasets.writing.zip_parts import zip_member
from service.errors import InvalidDataset
from service.kit.output_file import ExportFile
from service.kit.zip_stream import zip_stream
from service.store.base import ObjectStore


class Sink(Protocol):
    """A destination that receives the files of an export one after another."""

    def __call__(self, file: ExportFile) -> None:
        """Writes the whole file before returning."""
        ...


class FolderSink:
    """A folder in which each file is there whole or not at all.

    If the export's ``scratch`` is on the folder's file system, long files are moved here without copying.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: set[Path] = set()

    def __call__(self, file: ExportFile) -> None:
        """Writes or replaces the file. Raises OSError, or InvalidDataset for a path that leads out of the folder."""
        parts = PurePosixPath(file.path).parts
        if not parts or ".." in parts or parts[0] == "/":
            raise InvalidDataset(f"{file.path!r} leads out of the folder it is to be written in")
        target = self._folder.joinpath(*parts)
        if target.parent not in self._made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(target.parent)
        beside = target.with_name(f".{target.name[:100]}.part")
        if not file.move(beside):
            with open(beside, "wb") as out:
                for piece in file.pieces():
                    out.write(piece)
        os.replace(beside, target)


class StoreSink:
    """A prefix of an object store; one file's bytes are in memory at a time."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/")

    def __call__(self, file: ExportFile) -> None:
        """Puts the file at ``prefix/path``. Raises InvalidKey for an invalid path, or StoreUnavailable."""
        self._store.put(f"{self._prefix}/{file.path}", file.read())


def write_all(files: Iterable[ExportFile], sink: Sink) -> int:
    """Writes every file to the sink; returns the number of files."""
    count = 0
    for file in files:
        sink(file)
        count += 1
    return count


def zip_pieces(files: Iterable[ExportFile]) -> Iterator[bytes]:
    """The bytes of a zip of the files, as a stream; only the zip's directory is kept in memory."""
    return zip_stream(zip_member(file) for file in files)
