"""Leader lock in Redis: one worker at a time runs a periodic task, for as long as it renews the lock."""

from __future__ import annotations

import logging
import time
import uuid

from redis import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

# KEYS lock; ARGV token, ttl_ms. Returns 1 if the lock is ours now, 0 if another worker holds it.
# Redis expires by the clock of its machine: if that was set back, a dead holder's lock would stay as much longer.
_ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  if redis.call('PTTL', KEYS[1]) > 10 * tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


class LeaderLock:
    """A leader lock under ``key``, which expires ``ttl_s`` after its holder acquired or renewed it.

    Two workers may hold it for a moment after Redis lost its data, so the task must bear that.
    """

    def __init__(self, redis: Redis, key: str, *, ttl_s: float) -> None:
        self._redis = redis
        self._key = key
        self._ttl_s = ttl_s
        self._token = uuid.uuid4().hex
        self._until = 0.0

    def acquire(self) -> bool:
        """Acquires the lock, or renews it; False if another worker holds it. Raises RedisError if Redis fails."""
        asked_at = time.monotonic()
        acquired = bool(self._redis.eval(_ACQUIRE, 1, self._key, self._token, int(self._ttl_s * 1000)))
        self._until = asked_at + self._ttl_s if acquired else 0.0
        return acquired

    @property
    def is_ours(self) -> bool:
        """Whether no other worker can hold the lock yet, by this process's clock."""
        return time.monotonic() < self._until

    def release(self) -> None:
        """Releases the lock, so that another worker can acquire it at once."""
        self._until = 0.0
        try:
            if self._redis.get(self._key) == self._token:
                self._redis.delete(self._key)
        except RedisError as error:
            logger.debug("%s is not released and will expire: %s", self._key, error)
