"""What Celery logs of a broker that fails: a line a minute, without traceback; other errors stay whole."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
from redis.exceptions import OutOfMemoryError

from workers.runtime.celery_logging import BrokerFailures


class Capture(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def captured(now: list[float]) -> Iterator[Capture]:
    handler = Capture()
    handler.addFilter(BrokerFailures(lambda: now[0]))
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def fail(name: str, error: Exception, port: int = 1) -> None:
    try:
        raise error
    except type(error):
        logging.getLogger(name).error("Cannot connect to\n port %d", port, exc_info=sys.exc_info())


def test_a_storm_is_one_line_a_minute_that_counts_the_others(captured: Capture, now: list[float]) -> None:
    for number in range(300):
        now[0] = number * 0.3
        fail("celery.worker.consumer.consumer", OutOfMemoryError("command not allowed"), number)
    assert captured.lines == [
        "ERROR Cannot connect to port 0: command not allowed",
        "ERROR Cannot connect to port 200: command not allowed (and 199 more times since the last such line)",
    ]
    fail("kombu.asynchronous.hub", ConnectionResetError("gone"))
    assert captured.lines[2:] == ["ERROR Cannot connect to port 1: gone"]


def test_a_warning_about_a_default_that_we_set_is_dropped(captured: Capture) -> None:
    for text in ("use worker_cancel_long_running_tasks_on_connection_loss", "another warning"):
        logging.getLogger("py.warnings").warning("%s", text)
    assert captured.lines == ["WARNING another warning"]


def test_errors_that_are_not_the_brokers_and_other_loggers_keep_their_tracebacks(captured: Capture) -> None:
    for _ in range(2):
        fail("celery.worker.consumer.consumer", KeyError("a fault of ours"))
        fail("celery.app.trace", OutOfMemoryError("in a task"))
        fail("workers.generation", OutOfMemoryError("ours"))
    assert len(captured.lines) == 6
    assert all("Traceback" in line for line in captured.lines)
