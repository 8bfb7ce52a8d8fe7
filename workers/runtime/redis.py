"""A worker's connection to Redis."""

from __future__ import annotations

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.settings import Settings

_TIMEOUT_S = 2.0


def connect(settings: Settings) -> Redis:
    """A client that decodes its answers and never waits long: live state may be lost. It connects at its first use."""
    return Redis.from_url(
        settings.broker_url,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        decode_responses=True,
        # one retry at once, for a connection that a restarted broker has closed
        retry=Retry(NoBackoff(), 1),
    )
