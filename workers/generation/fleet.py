"""The fleet: which workers run, and which of them cannot use the model of a job.

A worker announces itself as long as it runs (its sweeper does, at each sweep). One that cannot use a job's model,
because a file of its own is damaged, its version is older or its memory too small, leaves the chunk to a worker that
may; where there is none, the chunk fails at once. The keys are :func:`~service.broker.redis_keys.workers` and
``unable``.
"""

from __future__ import annotations

import logging

from redis import Redis
from redis.exceptions import RedisError

from service.broker import redis_keys

logger = logging.getLogger(__name__)
_TTL_S = 7 * 86_400
MAX_WAIT_S = 600
"""A chunk waits so long for another worker that may use its model. One that is busy takes it at its next free slot."""

# KEYS workers, unable; ARGV worker, ttl_s, chunk, max_wait_s. Returns 1 if a worker runs that has not said of the job
# that it cannot, and the chunk has not waited for one too long.
_ANOTHER = """
local now = tonumber(redis.call('TIME')[1])
redis.call('HSETNX', KEYS[2], 'worker:' .. ARGV[1], now)
redis.call('HSETNX', KEYS[2], 'chunk:' .. ARGV[3], now)
redis.call('EXPIRE', KEYS[2], ARGV[2])
if now - redis.call('HGET', KEYS[2], 'chunk:' .. ARGV[3]) > tonumber(ARGV[4]) then return 0 end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')) do
  if redis.call('HEXISTS', KEYS[2], 'worker:' .. name) == 0 then return 1 end
end
return 0
"""


class Fleet:
    """The fleet, as the worker ``name`` sees it."""

    def __init__(self, redis: Redis, name: str, sweep_interval_s: float) -> None:
        self._redis = redis
        self._name = name
        self._announced_s = max(30, int(3 * sweep_interval_s))

    def announce(self) -> None:
        """Announces that this worker runs, until a few sweeps from now. Raises RedisError if Redis fails."""
        now_s = int(self._redis.time()[0])
        with self._redis.pipeline() as pipe:
            pipe.zadd(redis_keys.workers(), {self._name: now_s + self._announced_s})
            pipe.zremrangebyscore(redis_keys.workers(), "-inf", now_s - 1)
            pipe.execute()

    def leave(self) -> None:
        """Announces that this worker ends."""
        try:
            self._redis.zrem(redis_keys.workers(), self._name)
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)

    def may_leave_to_another(self, job: str, chunk: int) -> bool:
        """Whether another worker may be able to make the chunk, now that this one cannot. True if Redis fails."""
        keys = (redis_keys.workers(), redis_keys.unable(job))
        try:
            return bool(self._redis.eval(_ANOTHER, 2, *keys, self._name, _TTL_S, chunk, MAX_WAIT_S))
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)
            return True
