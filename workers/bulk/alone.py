"""A run by itself: one that was in hand when its worker died is executed in a process of its own.

A dead worker does not tell which of its runs killed it. So a death counts for none of them, and each is executed alone:
what kills this process is its own doing. ``python -m workers.bulk.alone RUN`` is that process; its parent waits for it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import service.local.lifeline
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.worker import BulkWorker, open_bulk_worker

logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.1
_ONE_AT_A_TIME = threading.Lock()


def execute_alone(worker: BulkWorker, run: str) -> RunOutcome | None:
    """Executes one delivery of the run in a process of its own; its outcome, or None while another is executed.

    One at a time, so that two that kill their process do not do it beside each other.
    """
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        return None
    read_end, write_end = os.pipe()
    try:
        launcher = str(Path(service.local.lifeline.__file__))
        process = subprocess.Popen(
            [sys.executable, "-P", launcher, str(read_end), __name__, run],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(read_end,),
            start_new_session=True,
            text=True,
        )
        with process:
            while process.poll() is None:
                if worker.shutdown.requested:
                    process.send_signal(signal.SIGTERM)
                worker.closed.wait(_POLL_INTERVAL_S)
            assert process.stdout is not None
            said = process.stdout.read().rpartition("outcome: ")[2].strip()
    finally:
        os.close(read_end)
        os.close(write_end)
        _ONE_AT_A_TIME.release()
    if process.returncode == 0 and said in set(RunOutcome):
        return RunOutcome(said)
    logger.error("run=%s ended its process with exit code %s", run, process.returncode)
    return RunOutcome.FAILED


def main() -> None:
    """Executes the run that the command line names; writes the outcome to standard output."""
    from service.settings import get_settings
    from workers.bulk.handlers import handlers

    settings = get_settings()
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    worker = open_bulk_worker(settings)
    signal.signal(signal.SIGTERM, lambda *_: worker.shutdown.request())
    outcome = execute_run(worker, sys.argv[1], handlers(), alone=None)
    worker.close()
    print(f"outcome: {outcome.value}")


if __name__ == "__main__":
    main()
