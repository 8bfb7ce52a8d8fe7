"""Objects on their way into the store, one behind the other, while what comes next is made."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from service.kit.output_file import ExportFile
from service.store.base import ObjectStore

_MAX_WAITING = 3
"""A shard and its checkpoint: that much may lie in the scratch folder besides what is being made."""


class Sender:
    """Puts files into the store in the order in which they are given, by a thread of its own.

    Once a put has failed none after it is done, so that whatever is in the store, all that was sent before it is too.
    """

    def __init__(self, store: ObjectStore, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export-sender")
        self._waiting: deque[Future[None]] = deque()
        self._sent = 0
        self._error: Exception | None = None

    def send(self, key: str, file: ExportFile) -> None:
        """Takes a file, whose bytes need not stay, and goes on; waits where others are still on their way.

        Raises what the store raised of this or an earlier one.
        """
        while len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft().result()
        self._raise()
        self._sent += 1
        path = self._scratch / f".export-{self._sent}.part"
        # what is in memory is small
        body = path if file.move(path) else file.read()
        self._waiting.append(self._thread.submit(self._put, key, body))

    def flush(self) -> None:
        """Waits until all is in the store. Raises what the store raised."""
        while self._waiting:
            self._waiting.popleft().result()
        self._raise()

    def close(self) -> None:
        """Waits for what is on its way, whatever becomes of it."""
        self._thread.shutdown()

    def _put(self, key: str, body: bytes | Path) -> None:
        try:
            if self._error is not None:
                return
            if isinstance(body, bytes):
                self._store.put(key, body)
            else:
                self._store.put_file(key, body, consume=True)
        except Exception as error:
            self._error = error
        finally:
            if isinstance(body, Path):
                body.unlink(missing_ok=True)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
