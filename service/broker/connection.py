"""Connections to Redis: the one place that makes clients, so that all of them read the address the same way.

Celery's own connection reads the same address: see :func:`service.broker.queues.celery_options`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.kit.broker_address import parse_broker_address

if TYPE_CHECKING:
    import redis
    import redis.asyncio


def connect(
    broker_url: str, *, timeout_s: float, keepalive: bool = False, retry_once: bool = False, decode: bool = True
) -> redis.Redis:
    """A client of the Redis at ``broker_url``, which connects at its first use and waits at most ``timeout_s`` a step.

    ``retry_once`` repeats a command once, at once, for a connection that a restarted broker has closed; ``decode``
    gives texts, not bytes.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    address = parse_broker_address(broker_url)
    options: dict[str, Any] = address.redis_options()
    if keepalive and address.socket is None:  # a Unix socket has no TCP keep-alive
        options["socket_keepalive"] = True
    options["retry"] = Retry(NoBackoff(), 1 if retry_once else 0)
    return Redis(**options, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, decode_responses=decode)


def connect_async(
    broker_url: str, *, connect_timeout_s: float, timeout_s: float | None = None, **options: Any
) -> redis.asyncio.Redis:
    """The same for an event loop. Without ``timeout_s`` it waits for an answer without end, as subscriptions do."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    address = parse_broker_address(broker_url).redis_options()
    options.setdefault("retry", Retry(NoBackoff(), 0))
    return Redis(**address, socket_connect_timeout=connect_timeout_s, socket_timeout=timeout_s, **options)
