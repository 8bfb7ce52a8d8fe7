"""When a callback is tried again, to the second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from service.webhooks.backoff import (
    DELAYS_S,
    JITTER,
    MAX_RETRY_AFTER_S,
    next_attempt_at,
    retry_after_s,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def low_end(low: float, high: float) -> float:
    return low


def seconds(failed: int, **given: object) -> float | None:
    at = next_attempt_at(failed, NOW, **{"draw": middle, **given})  # type: ignore[arg-type]
    return None if at is None else (at - NOW).total_seconds()


def test_pauses_grow_and_come_to_about_a_day() -> None:
    pauses = [seconds(failed) for failed in range(1, 10)]
    assert pauses == [5, 60, 300, 1800, 7200, 18000, 28800, 36000, None]
    assert list(DELAYS_S) == sorted(DELAYS_S)
    assert timedelta(hours=24) < timedelta(seconds=sum(DELAYS_S)) < timedelta(hours=27)


def test_pauses_are_spread() -> None:
    drawn = {next_attempt_at(2, NOW) for _ in range(100)}
    assert len(drawn) > 50
    assert all(
        timedelta(seconds=60 * (1 - JITTER)) <= at - NOW <= timedelta(seconds=60 * (1 + JITTER)) for at in drawn if at
    )


@pytest.mark.parametrize(
    ("status", "retry_after", "pause_s"),
    [
        (503, "120", 120),
        (429, "120", 120),
        (500, "120", 5),
        (503, "1", 5),
        (503, "999999999999999", MAX_RETRY_AFTER_S),
        (503, format_datetime(NOW + timedelta(minutes=10), usegmt=True), 600),
        (503, format_datetime(NOW - timedelta(minutes=10), usegmt=True), 5),
        (503, "soon", 5),
        (503, "-5", 5),
        (503, "\u0665", 5),
        (503, None, 5),
    ],
)
def test_a_receiver_may_ask_for_a_longer_pause_within_bounds(
    status: int, retry_after: str | None, pause_s: float
) -> None:
    def draw(low: float, high: float) -> float:
        return 1.0

    assert seconds(1, status=status, retry_after=retry_after, draw=draw) == pause_s


def test_nobody_comes_sooner_than_asked() -> None:
    found = seconds(1, status=503, retry_after="600", draw=low_end)
    assert found is not None
    assert found >= 600
    assert retry_after_s("600", NOW) == 600
