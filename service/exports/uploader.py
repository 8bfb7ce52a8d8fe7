"""Uploads to the store in order by a background thread, while the next files are written."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from service.kit.output_file import ExportFile
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_immutable
from service.store.keys import with_attempt

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

    def upload(self, key: str, file: ExportFile) -> StoredObject:
        """Queues a file, whose bytes may go afterwards; waits while too many are pending. Returns its object.

        ``key`` is without the attempt (:mod:`service.store.immutable`). Raises what the store raised for this file or
        an earlier one.
        """
        while len(self._pending) >= _MAX_PENDING:
            self._pending.popleft().result()
        self._raise()
        self._count += 1
        sha256 = file.digest()
        stored = StoredObject(key=with_attempt(key, sha256), sha256=sha256, bytes=file.size)
        path = self._scratch / f".export-{self._count}.part"
        # what is in memory is small
        body = path if file.move(path) else file.read()
        self._pending.append(self._thread.submit(self._put, stored, body))
        return stored

    def flush(self) -> None:
        """Waits until every queued file is in the store. Raises what the store raised."""
        while self._pending:
            self._pending.popleft().result()
        self._raise()

    def close(self) -> None:
        """Waits for the pending uploads, whether they succeed or not."""
        self._thread.shutdown()

    def _put(self, stored: StoredObject, body: bytes | Path) -> None:
        try:
            if self._error is not None:
                return
            put_immutable(self._store, stored, body, consume=True)
        except Exception as error:
            self._error = error
        finally:
            if isinstance(body, Path):
                body.unlink(missing_ok=True)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
