"""Celery's log in words: no line for each task, and of a broker that fails one line a minute, without tracebacks."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable

from billiard.exceptions import RestartFreqExceeded
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

_INTERVAL_S = 60.0
_LOGGERS = ("celery.worker.consumer", "celery.worker.loops", "kombu")
_SETTING_OF_OURS = "worker_cancel_long_running_tasks_on_connection_loss"
"""Celery warns at each lost connection that its next version has another default; we set it."""
_BROKER_ERRORS = (RedisError, KombuError, OSError, RestartFreqExceeded)


class BrokerFailures(logging.Filter):
    """Filter of a handler: shortens what Celery's consumer and kombu log, and drops what they repeat within a minute.

    A broker that refuses writes (its memory or disk is full, its replicas are away) makes them reconnect several times
    a second, each time with a traceback. A traceback stays where the error is not the broker's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; one that is may have been shortened."""
        if record.name == "py.warnings":
            return _SETTING_OF_OURS not in record.getMessage()
        if not record.name.startswith(_LOGGERS):
            return True
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, _BROKER_ERRORS):
            return True
        now, kind = self._clock(), (record.name, str(record.msg))
        logged_at, dropped = self._logged.get(kind, (float("-inf"), 0))
        if now - logged_at < _INTERVAL_S:
            self._logged[kind] = (logged_at, dropped + 1)
            return False
        self._logged[kind] = (now, 0)
        message = " ".join(record.getMessage().split())
        if error is not None and str(error) not in message:
            message = f"{message}: {error}"
        again = f" (and {dropped} more times since the last such line)" if dropped else ""
        record.msg, record.args = message + again, ()
        record.exc_info = record.exc_text = None
        return True


def quiet_celery() -> None:
    """Sets up the log of a worker, whose handlers exist."""
    # the worker's own line for each task says more than Celery's two
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    failures = BrokerFailures()
    for handler in logging.getLogger().handlers:
        handler.addFilter(failures)
    # Celery warns about root because of pickled messages; ours are JSON, and nothing else is accepted
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
