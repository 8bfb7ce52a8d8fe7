"""A worker's connection to Redis."""

from __future__ import annotations

from redis import Redis

from service.broker import connection
from service.settings import Settings

_TIMEOUT_S = 2.0


def connect(settings: Settings) -> Redis:
    """A client that decodes its answers and never waits long: live state may be lost. It connects at its first use."""
    return connection.connect(settings.broker_url, timeout_s=_TIMEOUT_S, retry_once=True)
