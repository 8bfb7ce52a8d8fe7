"""A dataset on disk as one archive to send: an archive as it is, a folder packed into a tar."""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from service.client.effects import PIECE_BYTES
from service.errors import InvalidRequest

_LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_HOW = "pack the dataset as .zip, .tar or .tar.gz, or give its folder"
_USTAR_AT = 257


class Archive:
    """An archive that is read while it is sent. As a context it holds the file open; a packed one is gone at its
    end."""

    def __init__(self, file: IO[bytes], content_type: str, moved: Callable[[int], None] = lambda more: None) -> None:
        self._file = file
        self.content_type = content_type
        self.size = file.seek(0, os.SEEK_END)
        self.moved = moved
        """Hears of the bytes that have gone; as a negative number, of those that have to go again."""

    def pieces(self) -> Iterator[bytes]:
        """All of it, from the beginning."""
        self._file.seek(0)
        sent = 0
        try:
            while piece := self._file.read(PIECE_BYTES):
                yield piece
                sent += len(piece)
                self.moved(len(piece))
        finally:
            if sent < self.size:
                self.moved(-sent)

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def open_archive(given: str | Path) -> Archive:
    """The archive at a path, or the folder there as one. Raises InvalidRequest naming what cannot be sent."""
    path = Path(given).expanduser()
    try:
        if path.is_dir():
            return Archive(_packed(path), "application/x-tar")
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise InvalidRequest(
            f"the dataset {path} cannot be read: {error.strerror or error} ({error.filename or path})"
        ) from None
    kind = _kind(file)
    if kind is None:
        file.close()
        raise InvalidRequest(f"{path} is no zip, tar or tar.gz; {_HOW}")
    return Archive(file, kind)


def _kind(file: IO[bytes]) -> str | None:
    """The media type of an archive, by its first bytes."""
    head = file.read(512)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "application/zip"
    if head[:2] == b"\x1f\x8b":
        return "application/gzip"
    return "application/x-tar" if head[_USTAR_AT : _USTAR_AT + 5] == b"ustar" else None


def _packed(folder: Path) -> IO[bytes]:
    """The files below ``folder`` as a tar, in a temporary file without a name. The same files give the same bytes."""
    out = tempfile.TemporaryFile(prefix="twinset-", buffering=PIECE_BYTES)  # noqa: SIM115
    count = 0
    try:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in _files(folder):
                _add(tar, path, path.relative_to(folder).as_posix())
                count += 1
    except BaseException:
        out.close()
        raise
    if not count:
        out.close()
        raise InvalidRequest(f"the folder {folder} has no files; {_HOW}")
    return out


def _files(folder: Path) -> Iterator[Path]:
    """All files in the order of their paths; hidden ones and litter are left out. Raises InvalidRequest for a link."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in _LITTER:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        else:
            # left out silently, a dataset of links would arrive empty
            raise InvalidRequest(
                f"{entry.path} is a link or no plain file, and links are not followed; put the file there, or take it out"
            )


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    # looked at through the open file, so that nothing is exchanged between the look and the reading
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"{path} is no plain file any more; leave the folder as it is while it is packed")
        info = tarfile.TarInfo(name)
        info.size = status.st_size
        info.mode = 0o644
        tar.addfile(info, file)
