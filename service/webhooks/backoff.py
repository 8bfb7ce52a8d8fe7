"""When a webhook is tried again: with growing delays for about a day, and later if the receiver asks for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

MINUTE_S, HOUR_S = 60, 3600
DELAYS_S = (5, MINUTE_S, 5 * MINUTE_S, 30 * MINUTE_S, 2 * HOUR_S, 5 * HOUR_S, 8 * HOUR_S, 10 * HOUR_S)
"""Delays after the first, second, ... failed attempt: 25 h 36 min in all, so a receiver may be down for a day."""
MAX_RETRY_AFTER_S = 6 * HOUR_S
"""The longest ``Retry-After`` that is respected."""
JITTER = 0.2
"""Each delay varies at random by this share, so that a recovering receiver does not get all webhooks at once."""

_RETRY_AFTER_STATUSES = (429, 503)


def next_attempt_at(
    failed: int,
    now: datetime,
    *,
    status: int | None = None,
    retry_after: str | None = None,
    draw: Callable[[float, float], float] = random.uniform,
) -> datetime | None:
    """When to try again after ``failed`` attempts, the last of which ended ``now`` with ``status``; None for never."""
    if failed > len(DELAYS_S):
        return None
    delay_s = DELAYS_S[failed - 1] * draw(1 - JITTER, 1 + JITTER)
    if status in _RETRY_AFTER_STATUSES:
        delay_s = max(delay_s, min(retry_after_s(retry_after, now), MAX_RETRY_AFTER_S) * draw(1, 1 + JITTER))
    return now + timedelta(seconds=delay_s)


def retry_after_s(retry_after: str | None, now: datetime) -> float:
    """The delay that a ``Retry-After`` header asks for, as seconds or a date; 0 where it is missing or invalid."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds())
