"""Rate limit of requests: a token bucket for each tenant in Redis, shared by all API processes.

The bucket is the hash :func:`service.broker.redis_keys.rate_limit`.

If Redis does not answer, requests are not limited.
"""

from __future__ import annotations

import math

from service.broker import redis_keys
from service.broker.live_state import LiveState
from service.errors import LimitReached

BURST_S = 2.0
"""A tenant may make the requests of this many seconds at once."""

# KEYS bucket; ARGV tokens a second, capacity. Takes a token and returns 0, or returns the milliseconds until there is
# one. A bucket without a key is full, and the key of a full bucket expires.
_TAKE = """
local rate, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local stored = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(stored[1]) or capacity, tonumber(stored[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - at) * rate)
local wait_ms = 0
if tokens >= 1 then tokens = tokens - 1 else wait_ms = math.ceil((1 - tokens) / rate * 1000) end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(capacity / rate * 1000) + 1000)
return wait_ms
"""


def check_rate(live_state: LiveState, tenant: str, rate_per_s: float) -> None:
    """Counts a request of ``tenant``.

    Raises :class:`LimitReached` if the tenant makes more than ``rate_per_s`` (0: no limit).
    """
    if rate_per_s <= 0:
        return
    capacity = max(1.0, BURST_S * rate_per_s)
    wait_ms = live_state.ask(
        lambda client: int(client.eval(_TAKE, 1, redis_keys.rate_limit(tenant), rate_per_s, capacity)), 0
    )
    if wait_ms > 0:
        wait_s = math.ceil(wait_ms / 1000)
        raise LimitReached(
            f"tenant {tenant!r} makes more than {rate_per_s:g} requests a second, its limit; wait {wait_s} s, "
            "or ask the operator of this service for more",
            retry_after_s=wait_s,
            limit="TWINSET_LIMIT_REQUESTS_PER_S",
            max=rate_per_s,
        )
