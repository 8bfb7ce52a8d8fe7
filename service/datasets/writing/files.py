"""A file of an export, whole in memory or on disk, and the temporary files that long ones are gathered in."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PIECE_BYTES = 1 << 18
_IN_MEMORY_BYTES = 1 << 20


@dataclass(frozen=True)
class ExportFile:
    """A file at ``path`` (parts joined by "/", safe on every system) of ``size`` bytes.

    ``pieces()`` are its bytes in order; it may be called again, until the next file of the export is taken. ``move(target)``, for a
    file that lies on disk already, puts it at ``target`` without copying it, and says whether it could.
    """

    path: str
    size: int
    pieces: Callable[[], Iterator[bytes]]
    move: Callable[[Path], bool] = lambda target: False

    @classmethod
    def of(cls, path: str, data: bytes) -> ExportFile:
        """A file that is whole in memory."""
        return cls(path, len(data), lambda: iter((data,)))

    def read(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces())


class Spool(io.RawIOBase):
    """Bytes gathered one after another, on disk from a megabyte on; a file object, so that other libraries can write here."""

    def __init__(self, scratch: Path | None = None) -> None:
        """``scratch`` is the folder for what goes to disk; without one it is the system's, and the file has no name there."""
        super().__init__()
        self._scratch = scratch
        self._file: IO[bytes] = io.BytesIO()
        self._name: Path | None = None
        self._on_disk = False
        self.size = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Adds to the end."""
        self.size += len(data)
        if self.size > _IN_MEMORY_BYTES and not self._on_disk:
            self._to_disk()
        return self._file.write(data)

    def pieces(self) -> Iterator[bytes]:
        """Everything written so far."""
        self._file.seek(0)
        left = self.size
        while left:
            piece = self._file.read(min(PIECE_BYTES, left))
            left -= len(piece)
            yield piece
        self._file.seek(0, 2)

    def as_file(self, path: str) -> ExportFile:
        """What was written, as a file of the export; once that was moved, nothing more may be written."""
        return ExportFile(path, self.size, self.pieces, self._move)

    def close(self) -> None:
        """Frees the disk."""
        self._file.close()
        if self._name is not None:
            self._name.unlink(missing_ok=True)
            self._name = None
        super().close()

    def _to_disk(self) -> None:
        held = self._file
        if self._scratch is None:
            self._file = tempfile.TemporaryFile(buffering=PIECE_BYTES)  # noqa: SIM115
        else:
            descriptor, name = tempfile.mkstemp(prefix=".export-", suffix=".part", dir=self._scratch)
            self._name = Path(name)
            self._file = open(descriptor, "w+b", buffering=PIECE_BYTES)  # noqa: SIM115
        held.seek(0)
        shutil.copyfileobj(held, self._file)
        self._on_disk = True

    def _move(self, target: Path) -> bool:
        if self._name is None:
            return False
        self._file.flush()
        try:
            os.replace(self._name, target)
        except OSError:
            return False
        # temporary files are their owner's alone
        os.chmod(target, 0o644)
        self._name = None
        return True
