"""Leases in Redis: one worker at a time on a chunk, and fencing for a worker that was stopped past its lease.

The keys are :func:`~service.broker.redis_keys.lease` (the holder's token, which expires), ``epochs`` (counted up each
time a lease is taken) and ``leases`` (when the live ones expire).

A lease only saves work. If Redis loses its data or does not answer, two workers may make the same chunk, in the same
bytes, and the store lets one of them commit it. So a lease stops a worker only if another one is known to have taken
the chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from redis import Redis
from redis.exceptions import RedisError

from service.broker import redis_keys
from service.broker.lease_token import lease_token

logger = logging.getLogger(__name__)
_TTL_S = 7 * 86_400

# KEYS lease, epochs, leases; ARGV token, lease_ms, chunk, ttl_s. Returns the epoch, or 0 if another holds the lease.
# A second call with the same token, after an answer that got lost, returns the same epoch. Redis expires by the clock
# of its machine: if that was set back, a dead worker's lease would stay as much longer, so it is cut to its length.
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return tonumber(redis.call('HGET', KEYS[2], ARGV[3])) end
if holder then
  if redis.call('PTTL', KEYS[1]) > 10 * tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return 0
end
local now = redis.call('TIME')
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[3], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2], ARGV[3])
local epoch = redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return epoch
"""

# As above, with ARGV[5] the holder's epoch. Returns 1 if the lease is ours (again), 0 if another worker has taken it.
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if not holder then
  local epoch = redis.call('HGET', KEYS[2], ARGV[3])
  if epoch and epoch ~= ARGV[5] then return 0 end
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
end
local now = redis.call('TIME')
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[3], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return 1
"""

# KEYS lease, leases; ARGV token, chunk.
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[2])
end
return 1
"""

# KEYS leases; ARGV lease_ms. Leases that would expire much too late are cut as above.
_LIVE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now + 10 * tonumber(ARGV[1]), '+inf')) do
  redis.call('ZADD', KEYS[1], now + ARGV[1], chunk)
end
return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')
"""


@dataclass(frozen=True)
class Lease:
    """A lease on a chunk of a job, or on a run (chunk 0). ``epoch`` is 0 if Redis did not answer."""

    job: str
    chunk: int
    epoch: int
    token: str = field(default_factory=lease_token)

    @property
    def key(self) -> str:
        """The Redis key that holds its token."""
        return redis_keys.lease(self.job, self.chunk)


class Leases:
    """Takes, renews and releases leases of ``lease_s`` seconds in ``redis``, which decodes its answers.

    ``holder`` is the worker's name, by which the API counts the workers that hold leases.
    """

    def __init__(self, redis: Redis, lease_s: float, holder: str = "") -> None:
        self._redis = redis
        self._lease_ms = int(lease_s * 1000)
        self._holder = holder

    def take(self, job: str, chunk: int) -> Lease | None:
        """The chunk's lease, or None while another worker holds it."""
        wanted = Lease(job, chunk, 0, lease_token(self._holder))
        keys = (wanted.key, redis_keys.epochs(job), redis_keys.leases(job))
        try:
            epoch = int(self._redis.eval(_TAKE, 3, *keys, wanted.token, self._lease_ms, chunk, _TTL_S))
        except RedisError as error:
            logger.warning("job=%s chunk=%d goes on without a lease: %s", job, chunk, error)
            return wanted
        return Lease(job, chunk, epoch, wanted.token) if epoch else None

    def renew(self, lease: Lease) -> bool:
        """Renews the lease. False only if another worker has taken the chunk; then nothing may be committed.

        A lease that expired, or that Redis lost, is ours again unless another worker took it.
        """
        keys = (lease.key, redis_keys.epochs(lease.job), redis_keys.leases(lease.job))
        arguments = (lease.token, self._lease_ms, lease.chunk, _TTL_S, lease.epoch)
        try:
            return bool(self._redis.eval(_RENEW, 3, *keys, *arguments))
        except RedisError as error:
            logger.warning("job=%s chunk=%d lease not renewed: %s", lease.job, lease.chunk, error)
            return True

    def release(self, lease: Lease) -> None:
        """Releases the lease, if it is still ours."""
        try:
            self._redis.eval(_RELEASE, 2, lease.key, redis_keys.leases(lease.job), lease.token, lease.chunk)
        except RedisError as error:
            logger.warning("job=%s chunk=%d lease not released: %s", lease.job, lease.chunk, error)

    def live(self, job: str) -> set[int]:
        """The chunks of the job that have a live lease. Raises RedisError if Redis fails."""
        return {int(chunk) for chunk in self._redis.eval(_LIVE, 1, redis_keys.leases(job), self._lease_ms)}

    def never_taken(self, job: str, chunks: Sequence[int]) -> set[int]:
        """The ``chunks`` whose lease was never taken, as far as Redis remembers. Raises RedisError if Redis fails."""
        if not chunks:
            return set()
        epochs = self._redis.hmget(redis_keys.epochs(job), [str(chunk) for chunk in chunks])
        return {chunk for chunk, epoch in zip(chunks, epochs, strict=True) if epoch is None}

    def forget(self, job: str) -> None:
        """Deletes the epochs and leases of a job that has ended."""
        try:
            self._redis.delete(redis_keys.epochs(job), redis_keys.leases(job))
        except RedisError as error:
            logger.debug("job=%s leases not deleted: %s", job, error)
