"""When a callback is tried again: soon, then ever later, for about a day; sooner or later as its receiver asks."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

MINUTE_S, HOUR_S = 60, 3600
DELAYS_S = (5, MINUTE_S, 5 * MINUTE_S, 30 * MINUTE_S, 2 * HOUR_S, 5 * HOUR_S, 8 * HOUR_S, 10 * HOUR_S)
"""Pauses after the first, second, ... failed attempt: 25 hours 36 minutes in all, so a receiver may be down for a
day."""
MAX_ASKED_FOR_S = 6 * HOUR_S
"""The longest ``Retry-After`` that is heeded."""
SPREAD = 0.2
"""Each pause is drawn within this share of its length, so that receivers which came down together do not go down
again."""

_MAY_ASK = (429, 503)


def next_attempt_at(
    failed: int,
    now: datetime,
    *,
    status: int | None = None,
    retry_after: str | None = None,
    draw: Callable[[float, float], float] = random.uniform,
) -> datetime | None:
    """When to try again after ``failed`` attempts, the last of which ended ``now`` with ``status``; None: not any
    more."""
    if failed > len(DELAYS_S):
        return None
    delay_s = DELAYS_S[failed - 1] * draw(1 - SPREAD, 1 + SPREAD)
    if status in _MAY_ASK:
        delay_s = max(delay_s, min(asked_for_s(retry_after, now), MAX_ASKED_FOR_S) * draw(1, 1 + SPREAD))
    return now + timedelta(seconds=delay_s)


def asked_for_s(retry_after: str | None, now: datetime) -> float:
    """The pause that a ``Retry-After`` asks for, in seconds or until a date; 0 where it is missing or makes no
    sense."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds())
