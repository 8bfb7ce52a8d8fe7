"""Uploads to the store in order by a background thread, while the next files are written."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from service.kit.output_file import ExportFile
from service.store.base import ObjectStore

_MAX_PENDING = 3
"""A shard and its checkpoint: so much may lie in the scratch folder besides what is being written."""


class Uploader:
    """Puts files into the store in the order of the :meth:`upload` calls, by one background thread.

    After a put has failed no later one is tried: if an object is in the store, so is every one uploaded before it.
    """

    def __init__(self, store: ObjectStore, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export-upload")
        self._pending: deque[Future[None]] = deque()
        self._count = 0
        self._error: Exception | None = None

    def upload(self, key: str, file: ExportFile) -> None:
        """Queues a file, whose bytes may go afterwards; waits while too many are pending.

        Raises what the store raised for this file or an earlier one.
        """
        while len(self._pending) >= _MAX_PENDING:
            self._pending.popleft().result()
        self._raise()
        self._count += 1
        path = self._scratch / f".export-{self._count}.part"
        # what is in memory is small
        body = path if file.move(path) else file.read()
        self._pending.append(self._thread.submit(self._put, key, body))

    def flush(self) -> None:
        """Waits until every queued file is in the store. Raises what the store raised."""
        while self._pending:
            self._pending.popleft().result()
        self._raise()

    def close(self) -> None:
        """Waits for the pending uploads, whether they succeed or not."""
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
