"""Leases: one worker at a time on a chunk, and fencing for one that was stopped past its lease and woke up again.

    twinset:lease:{job}:{chunk}   string  the holder's token, expires by itself
    twinset:epochs:{job}          hash    chunk -> epoch, counted up each time the chunk's lease is taken
    twinset:leases:{job}          zset    chunk -> when its lease runs out (ms), to count the living ones

A lease only saves work. Redis may forget it all, or not answer: then two workers may make the same chunk, in the same
bytes, and the store lets one of them commit it. So nothing here ever stops a worker unless another one is known to have
taken over.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from redis import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)
_TTL_S = 7 * 86_400

# KEYS lease, epochs, leases; ARGV token, lease_ms, chunk, kept_s. Returns the epoch, or 0 if another holds the lease.
# Asked again with the same token, after an answer that got lost, it gives the same epoch.
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return tonumber(redis.call('HGET', KEYS[2], ARGV[3])) end
if holder then return 0 end
local now = redis.call('TIME')
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[3], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2], ARGV[3])
local epoch = redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return epoch
"""

# As above, with ARGV[5] the holder's epoch. Returns 1 if the lease is ours (again), 0 if another has taken it since.
_HOLD = """
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

_LIVE = """
local now = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000), '+inf')
"""


@dataclass(frozen=True)
class Lease:
    """A chunk in one worker's hands. ``epoch`` is 0 where Redis could not be asked."""

    job: str
    chunk: int
    epoch: int
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def key(self) -> str:
        return f"twinset:lease:{self.job}:{self.chunk}"


class Leases:
    """Takes, keeps and gives back leases in ``redis`` (which decodes its answers), each ``lease_s`` seconds long."""

    def __init__(self, redis: Redis, lease_s: float) -> None:
        self._redis = redis
        self._lease_ms = int(lease_s * 1000)

    def take(self, job: str, chunk: int) -> Lease | None:
        """The chunk's lease, or None while another worker holds it."""
        wanted = Lease(job, chunk, 0)
        keys = (wanted.key, _epochs(job), _leases(job))
        try:
            epoch = int(self._redis.eval(_TAKE, 3, *keys, wanted.token, self._lease_ms, chunk, _TTL_S))
        except RedisError as error:
            logger.warning("job=%s chunk=%d works without a lease: %s", job, chunk, error)
            return wanted
        return Lease(job, chunk, epoch, wanted.token) if epoch else None

    def hold(self, lease: Lease) -> bool:
        """Renews the lease. False only if another worker has taken the chunk since; then nothing may be committed.

        A lease that ran out, or that Redis forgot, is ours again as long as nobody else took it.
        """
        keys = (lease.key, _epochs(lease.job), _leases(lease.job))
        arguments = (lease.token, self._lease_ms, lease.chunk, _TTL_S, lease.epoch)
        try:
            return bool(self._redis.eval(_HOLD, 3, *keys, *arguments))
        except RedisError as error:
            logger.warning("job=%s chunk=%d lease not renewed: %s", lease.job, lease.chunk, error)
            return True

    def release(self, lease: Lease) -> None:
        """Gives the lease back, if it is still ours."""
        try:
            self._redis.eval(_RELEASE, 2, lease.key, _leases(lease.job), lease.token, lease.chunk)
        except RedisError as error:
            logger.warning("job=%s chunk=%d lease not released: %s", lease.job, lease.chunk, error)

    def live(self, job: str) -> set[int]:
        """The chunks of the job that are in some worker's hands. Raises RedisError if nobody can tell."""
        return {int(chunk) for chunk in self._redis.eval(_LIVE, 1, _leases(job))}

    def never_taken(self, job: str, chunks: Sequence[int]) -> set[int]:
        """Those of ``chunks`` that no worker has had yet, as far as Redis remembers. Raises RedisError if nobody can
        tell."""
        if not chunks:
            return set()
        epochs = self._redis.hmget(_epochs(job), [str(chunk) for chunk in chunks])
        return {chunk for chunk, epoch in zip(chunks, epochs, strict=True) if epoch is None}

    def forget(self, job: str) -> None:
        """Drops what is kept of a job that has ended."""
        try:
            self._redis.delete(_epochs(job), _leases(job))
        except RedisError as error:
            logger.debug("job=%s leases not forgotten: %s", job, error)


def _epochs(job: str) -> str:
    return f"twinset:epochs:{job}"


def _leases(job: str) -> str:
    return f"twinset:leases:{job}"
