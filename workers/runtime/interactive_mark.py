"""The mark that interactive twins are made on this machine, for which its trainings give way."""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Callable

from redis import Redis
from redis.exceptions import RedisError

from service.broker import redis_keys

logger = logging.getLogger(__name__)
_TTL_S = 2.0
_INTERVAL_S = 0.5


class InteractiveMark:
    """Renews the mark in Redis on a thread of its own while ``is_interactive()``."""

    def __init__(self, redis: Redis, is_interactive: Callable[[], bool], *, host: str | None = None) -> None:
        self._redis, self._is_interactive = redis, is_interactive
        self._key = redis_keys.interactive(host or platform.node())
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interactive-mark", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; the mark expires."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL_S):
            if not self._is_interactive():
                continue
            try:
                self._redis.set(self._key, "1", px=int(_TTL_S * 1000))
            except RedisError as error:
                logger.debug("interactive work is not marked: %s", error)


def is_marked(redis: Redis, host: str | None = None) -> bool:
    """Whether interactive twins are made on the machine; False while Redis does not answer."""
    try:
        return bool(redis.exists(redis_keys.interactive(host or platform.node())))
    except RedisError:
        return False
