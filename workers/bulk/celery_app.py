"""The bulk worker's Celery application: one task, whose argument is the id of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from celery import Celery

from service.broker.run_queue import RUN_QUEUE, RUN_TASK, run_celery_options
from service.kit.run_kinds import RunKind
from service.settings import Settings
from workers.bulk.alone import execute_alone
from workers.bulk.context import RunHandler
from workers.bulk.execute import RunOutcome, execute_run, parse_run_id
from workers.bulk.handlers import handlers
from workers.bulk.worker import BulkWorker
from workers.runtime.celery_options import worker_options

logger = logging.getLogger(__name__)


def create_bulk_app(
    settings: Settings,
    worker: BulkWorker,
    kinds: Mapping[RunKind, RunHandler] | None = None,
    *,
    queue: str = RUN_QUEUE,
) -> Celery:
    """The Celery application of ``worker``, with the handlers of the runs in ``queue``.

    If the process dies, the sweeper requeues the runs it was executing.
    """
    app = Celery("twinset-bulk", set_as_current=False)
    app.conf.update(run_celery_options(settings, queue) | worker_options(worker.slots.count))
    kinds = handlers() if kinds is None else kinds

    def execute(run: str) -> str:
        """Executes the run that comes next, or if none waits the one that the message names; returns its outcome."""
        run_id = parse_run_id(run)
        if run_id is None:
            logger.warning("dropped a message without a valid run id: run=%.80r", run)
            return RunOutcome.NOTHING_TO_DO.value
        if worker.shutdown.requested:
            # what waits stays listed
            return RunOutcome.RELEASED.value
        with worker.slots.next_item() as taken:
            return execute_run(worker, run_id if taken is None else taken.name, kinds, alone=execute_alone).value

    app.task(execute, name=RUN_TASK, shared=False, acks_late=True, ignore_result=True)
    return app
