"""Turns: what every worker could do and one at a time does, for as long as it comes back to say so."""

from __future__ import annotations

import logging
import time
import uuid

from redis import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


class LeaderLock:
    """The turn called ``name``. A hint as all of Redis: flushed, two may have it for a moment, which must do no
    harm."""

    def __init__(self, redis: Redis, name: str, *, lasts_s: float) -> None:
        self._redis = redis
        self._name = name
        self._lasts_s = lasts_s
        self._token = uuid.uuid4().hex
        self._until = 0.0

    def take(self) -> bool:
        """Takes the turn, or holds it for longer; False if another has it. Raises RedisError if nobody can tell."""
        asked_at = time.monotonic()
        taken = bool(self._redis.eval(_TAKE, 1, self._name, self._token, int(self._lasts_s * 1000)))
        self._until = asked_at + self._lasts_s if taken else 0.0
        return taken

    @property
    def is_ours(self) -> bool:
        """Whether the turn cannot have passed to another yet, as far as our own clock tells."""
        return time.monotonic() < self._until

    def give_back(self) -> None:
        """Lets another have the turn at once."""
        self._until = 0.0
        try:
            if self._redis.get(self._name) == self._token:
                self._redis.delete(self._name)
        except RedisError as error:
            logger.debug("%s stays taken until it expires: %s", self._name, error)
