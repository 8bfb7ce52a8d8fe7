"""A file of an export, whole in memory or on disk, and the temporary files that long ones are gathered in."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

BLOCK_BYTES = 1 << 18
_MAX_WAITING = 4


@dataclass(frozen=True)
class ExportFile:
    """A file at ``path`` (parts joined by "/", safe on every system) of ``size`` bytes.

    ``pieces()`` are its bytes in order; it may be called again, until the next file of the export is taken.
    ``move(target)``, for a file that lies on disk already, puts it at ``target`` without copying it, and says whether
    it could. ``sha256`` is that of its bytes, in hex, where it was worked out while they were written.
    """

    path: str
    size: int
    pieces: Callable[[], Iterator[bytes]]
    move: Callable[[Path], bool] = lambda target: False
    sha256: str | None = None

    @classmethod
    def of(cls, path: str, data: bytes) -> ExportFile:
        """A file that is whole in memory."""
        return cls(path, len(data), lambda: iter((data,)))

    def read(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces())

    def digest(self) -> str:
        """Its sha256, in hex."""
        if self.sha256 is not None:
            return self.sha256
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


class Spool(io.RawIOBase):
    """Bytes gathered one after another, on disk from a block on; a file object, so that other libraries can write here.

    What goes to disk is written by a thread of its own, a block at a time, which leaves the interpreter to whoever
    makes the bytes. The blocks are used again: fresh memory for each would cost as much as hashing it.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        """``scratch`` is the folder for what goes to disk; without one it is the system's, and the file has no name
        there."""
        super().__init__()
        self._scratch = scratch
        self._block = _new_block()
        self._filled = 0
        self._file: IO[bytes] | None = None
        self._name: Path | None = None
        self._digest = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[memoryview]] = deque()
        self.size = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Adds to the end. Raises OSError, perhaps of earlier bytes, where the disk takes no more."""
        count = len(data)
        end = self._filled + count
        if end < BLOCK_BYTES:
            self._block[self._filled : end] = data
            self._filled = end
        else:
            self._write_over(memoryview(data))
        self.size += count
        return count

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """Everything written so far, from byte ``start`` on; nothing may be written before the last piece is taken."""
        if self._file is None:
            if start < self.size:
                yield bytes(self._block[start : self._filled])
            return
        self._settle()
        self._file.seek(start)
        left = self.size - start
        while left:
            piece = self._file.read(min(BLOCK_BYTES, left))
            left -= len(piece)
            yield piece
        self._file.seek(0, os.SEEK_END)

    def as_file(self, path: str) -> ExportFile:
        """What was written, as a file of the export; once that was moved, nothing more may be written."""
        self._settle()
        digest = self._digest.copy()
        digest.update(self._block[: self._filled])
        return ExportFile(path, self.size, self.pieces, self._move, digest.hexdigest())

    def close(self) -> None:
        """Frees the disk."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        if self._file is not None:
            self._file.close()
        if self._name is not None:
            self._name.unlink(missing_ok=True)
            self._name = None
        super().close()

    def _write_over(self, data: memoryview) -> None:
        """Adds what does not fit in the open block."""
        while len(data) >= BLOCK_BYTES - self._filled:
            taken = BLOCK_BYTES - self._filled
            self._block[self._filled :] = data[:taken]
            self._filled, data = BLOCK_BYTES, data[taken:]
            self._drain()
        self._block[: len(data)] = data
        self._filled = len(data)

    def _drain(self) -> None:
        """Hands the open block to the thread, and opens another; waits where the thread lags behind."""
        if self._file is None:
            self._file = self._opened()
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="export-spool")
        assert self._thread is not None
        # hashed here, as the thread would wait for the interpreter once more between hashing and writing
        self._digest.update(self._block[: self._filled])
        self._waiting.append(self._thread.submit(self._keep, self._block, self._filled))
        self._block = self._waiting.popleft().result() if len(self._waiting) >= _MAX_WAITING else _new_block()
        self._filled = 0

    def _settle(self) -> None:
        """Brings all to disk, if some of it is."""
        if self._file is not None and self._filled:
            self._drain()
        while self._waiting:
            self._waiting.popleft().result()

    def _keep(self, block: memoryview, filled: int) -> memoryview:
        assert self._file is not None
        left = block[:filled]
        while left:
            left = left[self._file.write(left) :]
        return block

    def _opened(self) -> IO[bytes]:
        if self._scratch is None:
            return tempfile.TemporaryFile(buffering=0)
        descriptor, name = tempfile.mkstemp(prefix=".export-", suffix=".part", dir=self._scratch)
        self._name = Path(name)
        return open(descriptor, "w+b", buffering=0)

    def _move(self, target: Path) -> bool:
        if self._name is None or self._file is None:
            return False
        self._settle()
        try:
            os.replace(self._name, target)
        except OSError:
            return False
        # temporary files are their owner's alone
        os.chmod(target, 0o644)
        self._name = None
        return True


def _new_block() -> memoryview:
    # through a view bytes are copied in once, into a slice of the bytearray itself twice
    return memoryview(bytearray(BLOCK_BYTES))
