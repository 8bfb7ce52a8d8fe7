"""The scaling rule: replicas for a backlog and a target, never fewer than the busy ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.kit.scaling import replicas_wanted


@pytest.mark.parametrize(
    ("backlog_s", "target_s", "busy", "replicas"),
    [(0, 600, 0, 0), (0.001, 600, 0, 1), (600, 600, 0, 1), (600.1, 600, 0, 2), (6000, 600, 3, 10), (60, 600, 3, 3)],
)
def test_a_backlog_needs_as_many_workers_as_do_it_in_the_target_time(
    backlog_s: float, target_s: float, busy: int, replicas: int
) -> None:
    assert replicas_wanted(backlog_s, target_s, busy) == replicas


@given(st.floats(0, 1e9), st.floats(0.1, 1e6), st.integers(0, 1000))
def test_no_busy_worker_is_scaled_away_and_no_replica_is_without_work(
    backlog_s: float, target_s: float, busy: int
) -> None:
    replicas = replicas_wanted(backlog_s, target_s, busy)
    assert replicas >= busy
    assert replicas * target_s >= backlog_s * (1 - 1e-12)
    assert replicas == busy or (replicas - 1) * target_s < backlog_s


def test_a_target_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="target_s is 0"):
        replicas_wanted(1.0, 0)
