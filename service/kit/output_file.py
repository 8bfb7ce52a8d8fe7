"""Output files of exports (ExportFile), and the temporary files in which long ones are written (Spool)."""

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
_MAX_PENDING = 4


@dataclass(frozen=True)
class ExportFile:
    """A file of an export: ``size`` bytes at ``path`` (parts joined by "/", safe on every system).

    ``pieces()`` yields its bytes in order; it may be called repeatedly until the next file of the export is requested.
    ``move(target)`` moves a file that is on disk already to ``target`` without copying, and returns whether it could.
    ``sha256`` is that of its bytes, in hex, if it was computed while they were written.
    """

    path: str
    size: int
    pieces: Callable[[], Iterator[bytes]]
    move: Callable[[Path], bool] = lambda target: False
    sha256: str | None = None

    @classmethod
    def of(cls, path: str, data: bytes) -> ExportFile:
        """A file whose bytes are all in memory."""
        return cls(path, len(data), lambda: iter((data,)))

    def read(self) -> bytes:
        """All its bytes."""
        return b"".join(self.pieces())

    def digest(self) -> str:
        """The sha256 of the file, in hex."""
        if self.sha256 is not None:
            return self.sha256
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


class Spool(io.RawIOBase):
    """An append-only temporary file: in memory up to one block, then on disk. Other libraries can write to it.

    A background thread writes to disk, a block at a time, which leaves the interpreter to the producer of the bytes.
    Blocks are reused: fresh memory for each would cost as much as hashing it.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        """``scratch`` is the folder of the file on disk; without it that is the system's, and the file has no name."""
        super().__init__()
        self._scratch = scratch
        self._block = _new_block()
        self._filled = 0
        self._file: IO[bytes] | None = None
        self._name: Path | None = None
        self._digest = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._pending: deque[Future[memoryview]] = deque()
        self.size = 0

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Appends bytes. Raises OSError, perhaps for earlier bytes, if the disk is full."""
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
        """Everything written so far, from byte ``start`` on; nothing may be written until the last piece is read."""
        if self._file is None:
            if start < self.size:
                yield bytes(self._block[start : self._filled])
            return
        self._flush()
        self._file.seek(start)
        left = self.size - start
        while left:
            piece = self._file.read(min(BLOCK_BYTES, left))
            left -= len(piece)
            yield piece
        self._file.seek(0, os.SEEK_END)

    def as_file(self, path: str) -> ExportFile:
        """The bytes written so far as a file of the export; once that is moved, nothing more may be written."""
        self._flush()
        digest = self._digest.copy()
        digest.update(self._block[: self._filled])
        return ExportFile(path, self.size, self.pieces, self._move, digest.hexdigest())

    def close(self) -> None:
        """Removes the file on disk."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        if self._file is not None:
            self._file.close()
        if self._name is not None:
            self._name.unlink(missing_ok=True)
            self._name = None
        super().close()

    def _write_over(self, data: memoryview) -> None:
        """Appends bytes that do not fit in the open block."""
        while len(data) >= BLOCK_BYTES - self._filled:
            free = BLOCK_BYTES - self._filled
            self._block[self._filled :] = data[:free]
            self._filled, data = BLOCK_BYTES, data[free:]
            self._drain()
        self._block[: len(data)] = data
        self._filled = len(data)

    def _drain(self) -> None:
        """Queues the open block for the thread and opens another; waits if the thread lags behind."""
        if self._file is None:
            self._file = self._opened()
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="export-spool")
        assert self._thread is not None
        # hashed here: in the thread, it would wait for the interpreter once more between hashing and writing
        self._digest.update(self._block[: self._filled])
        self._pending.append(self._thread.submit(self._write_block, self._block, self._filled))
        self._block = self._pending.popleft().result() if len(self._pending) >= _MAX_PENDING else _new_block()
        self._filled = 0

    def _flush(self) -> None:
        """Writes the rest to disk, if some of it is there already."""
        if self._file is not None and self._filled:
            self._drain()
        while self._pending:
            self._pending.popleft().result()

    def _write_block(self, block: memoryview, filled: int) -> memoryview:
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
        self._flush()
        try:
            os.replace(self._name, target)
        except OSError:
            return False
        # temporary files are readable by their owner alone
        os.chmod(target, 0o644)
        self._name = None
        return True


def _new_block() -> memoryview:
    # through a view, bytes are copied in once; into a slice of the bytearray itself, twice
    return memoryview(bytearray(BLOCK_BYTES))
