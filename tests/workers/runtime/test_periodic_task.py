"""Periodic tasks that fail: the failure is logged, but not at every run."""

from __future__ import annotations

import logging
import threading

import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from workers.runtime.periodic_task import PeriodicTask

OUTCOMES = ["no broker", "no broker", "no broker", "a full broker", "", "", "no broker"]


class Scripted(PeriodicTask):
    """A task whose runs fail as the script says, then end."""

    def __init__(self) -> None:
        super().__init__(Redis(port=1), "lock", name="task", ttl_s=1, interval_s=0)
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


def test_an_outage_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="workers.runtime.periodic_task")
    task = Scripted()
    task.start()
    assert task.over.wait(timeout=30)
    task.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "the task cannot run: no broker",
        "the task cannot run: a full broker",
        "the task runs again",
        "the task cannot run: no broker",
        "the task runs again",
    ]
