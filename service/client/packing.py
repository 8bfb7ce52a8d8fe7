"""A dataset on disk as one archive to upload: an archive as it is, a folder packed into a tar."""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from service.client.effects import CHUNK_BYTES
from service.errors import InvalidRequest

_LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_REMEDY = "pack the dataset as .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz, or give its folder"
_PACKED = {b"\x1f\x8b": "application/gzip", b"BZh": "application/x-bzip2", b"\xfd7zXZ\0": "application/x-xz"}


class Archive:
    """An archive that is read while it is sent. Its context closes the file, which deletes a temporary one."""

    def __init__(
        self, file: IO[bytes], content_type: str, on_progress: Callable[[int], None] = lambda more: None
    ) -> None:
        self._file = file
        self.content_type = content_type
        self.size = file.seek(0, os.SEEK_END)
        self.on_progress = on_progress
        """Called with the number of bytes sent; with a negative number for bytes that have to be sent again."""

    def chunks(self) -> Iterator[bytes]:
        """The whole archive, from the beginning."""
        self._file.seek(0)
        sent = 0
        try:
            while chunk := self._file.read(CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                self.on_progress(len(chunk))
        finally:
            if sent < self.size:
                self.on_progress(-sent)

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def open_archive(given: str | Path) -> Archive:
    """Opens the archive at a path, or packs the folder there. Raises InvalidRequest naming what cannot be sent."""
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
        raise InvalidRequest(f"{path} is no archive of a kind that is read; {_REMEDY}")
    return Archive(file, kind)


def _kind(file: IO[bytes]) -> str | None:
    """The media type of an archive, by its first bytes."""
    head = file.read(8)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "application/zip"
    if packed := next((kind for mark, kind in _PACKED.items() if head.startswith(mark)), None):
        return packed
    file.seek(0)
    return "application/x-tar" if tarfile.is_tarfile(file) else None


def _packed(folder: Path) -> IO[bytes]:
    """A tar of the files below ``folder``, in an unnamed temporary file. The same files give the same bytes."""
    out = tempfile.TemporaryFile(prefix="twinset-", buffering=CHUNK_BYTES)  # noqa: SIM115
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
        raise InvalidRequest(f"the folder {folder} has no files; {_REMEDY}")
    return out


def _files(folder: Path) -> Iterator[Path]:
    """All files in path order, without hidden ones and system files. Raises InvalidRequest for a link."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in _LITTER:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        else:
            # skipping links silently would upload a dataset of links as an empty one
            raise InvalidRequest(
                f"{entry.path} is not a plain file, and links are not followed; put the file itself there, or remove it"
            )


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    # checked through the open file, so that it cannot be replaced between the check and the reading
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"{path} is no longer a plain file; do not change the folder while it is packed")
        info = tarfile.TarInfo(name)
        info.size = status.st_size
        info.mode = 0o644
        tar.addfile(info, file)
