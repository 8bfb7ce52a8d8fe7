"""Heartbeat file: a worker touches it while its loops turn, so that a probe can tell a hung process from a busy one.

The loop is Celery's, which takes messages from the broker. While the broker is away there is nothing for it to take,
and a restart would not help, so the file is touched all the same. It is not touched once work hangs for so long that
its lease is left to expire.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps
from redis import Redis
from redis.exceptions import RedisError

from service.errors import SettingsError

logger = logging.getLogger(__name__)
HEARTBEAT_INTERVAL_S = 5.0
LOOP_TIMEOUT_S = 60.0


class HeartbeatFile:
    """Touches ``path`` every ``interval_s`` seconds while the loop of ``app`` turns and ``hangs`` is false.

    Without a path it does nothing.
    """

    def __init__(
        self,
        path: Path | None,
        app: Celery,
        redis: Redis,
        hangs: Callable[[], bool],
        *,
        interval_s: float = HEARTBEAT_INTERVAL_S,
        loop_timeout_s: float = LOOP_TIMEOUT_S,
    ) -> None:
        self._path = path
        self._redis = redis
        self._hangs = hangs
        self._interval_s = interval_s
        self._loop_timeout_s = loop_timeout_s
        self._turned_at: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        app.steps["consumer"].add(_loop_step(self._record_turn, interval_s))

    def start(self) -> None:
        """Removes the file of an earlier process, and starts. Raises SettingsError if the file cannot be written."""
        if self._path is None:
            return
        try:
            self._path.touch()
            self._path.unlink()
        except OSError as error:
            raise SettingsError(
                f"the heartbeat file {self._path} cannot be written: {error.strerror}; set TWINSET_HEARTBEAT_FILE to a "
                "path in a folder that this process may write to"
            ) from None
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and removes the file."""
        self._stopped.set()
        if self._path is not None:
            self._thread.join()
            self._path.unlink(missing_ok=True)

    def beat(self) -> bool:
        """Touches the file if the process works as it should; whether it did."""
        if not self._broker_answers():
            self._turned_at = time.monotonic()
        turns = self._turned_at is not None and time.monotonic() - self._turned_at <= self._loop_timeout_s
        if self._path is None or not turns or self._hangs():
            return False
        self._path.touch()
        return True

    def _record_turn(self) -> None:
        self._turned_at = time.monotonic()

    def _broker_answers(self) -> bool:
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                self.beat()
            except OSError as error:
                logger.warning("the heartbeat file %s cannot be written: %s", self._path, error)


def _loop_step(record_turn: Callable[[], None], interval_s: float) -> type[Any]:
    class LoopStep(bootsteps.StartStopStep):  # type: ignore[misc]
        """Calls ``record_turn`` from Celery's loop, over and over; begins again with each connection to the broker."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, parent: Any) -> None:
            record_turn()
            self._timer = parent.timer.call_repeatedly(interval_s, record_turn)

        def stop(self, parent: Any) -> None:
            self._timer.cancel()

    return LoopStep
