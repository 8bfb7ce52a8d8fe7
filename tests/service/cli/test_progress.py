"""Tests of the progress estimate between two chunks."""

from __future__ import annotations

from typing import Any

from service.cli.console import duration
from service.cli.progress import ProgressEstimate


def view(state: str, done: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "state": state,
        "done": done,
        "total": 8,
        "rate": None,
        "seconds_left": None,
        "seconds": None,
        **more,
    }


def test_time_left_and_bar_advance_between_two_chunks() -> None:
    estimate = ProgressEstimate()
    assert estimate.update(view("queued"), 0.0) == (0.0, "waiting for a worker")
    assert estimate.update(view("running"), 10.0) == (0.0, "making the first twins")
    assert estimate.update(view("running", rate=0.5, seconds_left=16.0), 12.0) == (1.0, "0.5 twins/s, 14 s left")
    assert estimate.update(view("running", rate=0.5, seconds_left=16.0), 16.0) == (3.0, "0.5 twins/s, 10 s left")
    # Four twins come in, a little late: the bar waits rather than go back.
    assert estimate.update(view("running", 4, rate=0.5, seconds_left=8.0), 20.0) == (
        4.0,
        "0.5 twins/s, 8.0 s left",
    )
    assert estimate.update(view("running", 4, rate=0.5, seconds_left=8.0), 90.0) == (
        7.9,
        "0.5 twins/s, 0.0 s left",
    )
    assert estimate.update(view("succeeded", 8, seconds=75.2), 91.0) == (8.0, "in 1 min 15 s")


def test_the_final_state_is_shown_unless_succeeded() -> None:
    assert ProgressEstimate().update(view("partial", 7, seconds=5.0), 0.0) == (7.0, "partial in 5.0 s")
    assert ProgressEstimate().update(view("cancelling", 2), 0.0) == (2.0, "stopping")


def test_durations_are_formatted_in_suitable_units() -> None:
    assert [duration(seconds) for seconds in (0.44, 9.94, 59.4, 75.2, 7300)] == [
        "0.4 s",
        "9.9 s",
        "59 s",
        "1 min 15 s",
        "2 h 01 min",
    ]
