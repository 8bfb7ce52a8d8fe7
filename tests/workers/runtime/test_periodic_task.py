"""Passes that fail: said, but not at every pass."""

from __future__ import annotations

import logging
import threading

import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from workers.runtime.periodic_task import PeriodicTask

OUTCOMES = ["no broker", "no broker", "no broker", "a full broker", "", "", "no broker"]


class Scripted(PeriodicTask):
    """Passes that fail as the script says, then end."""

    def __init__(self) -> None:
        super().__init__(Redis(port=1), "turn", name="tests", lasts_s=1, interval_s=0)
        self.outcomes = iter(OUTCOMES)
        self.over = threading.Event()

    def run_once(self) -> bool:
        outcome = next(self.outcomes, None)
        if outcome is None:
            self.over.set()
            self._stop.set()
        elif outcome:
            raise ConnectionError(outcome)
        return True


def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="workers.runtime.periodic_task")
    passes = Scripted()
    passes.start()
    assert passes.over.wait(timeout=30)
    passes.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "no pass of the tests: no broker",
        "no pass of the tests: a full broker",
        "the tests makes its passes again",
        "no pass of the tests: no broker",
        "the tests makes its passes again",
    ]
