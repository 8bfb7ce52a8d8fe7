"""The rate of a job, from the moments between which it is taken."""

from __future__ import annotations

from workers.generation.progress import rate_of


def test_the_rate_is_that_of_the_last_half_minute_to_minute() -> None:
    rate, first = rate_of(None, None, 1000.0, 5.0)
    assert rate is None
    rate, moved = rate_of(first["base"], first["mid"], 1010.0, 25.0)
    assert rate == 2.0
    assert moved == {}
    rate, moved = rate_of(first["base"], first["mid"], 1040.0, 85.0)
    assert rate == 2.0
    assert moved["base"] == first["mid"]
    _, again = rate_of(moved["base"], moved["mid"], 1075.0, 85.0)
    rate, _ = rate_of(again["base"], again["mid"], 1080.0, 85.0)
    assert rate is None, "nothing was made since the base: no rate is better than an old one"
