"""The bulk worker's Celery application: one task, whose argument is the id of a run."""

from __future__ import annotations

import logging

from celery import Celery

from service.broker.run_queue import RUN_TASK, run_celery_options
from service.kit.run_kinds import RunKind
from service.settings import Settings
from workers.bulk.context import RunHandler
from workers.bulk.execute import RunOutcome, execute_run, parse_run_id
from workers.bulk.worker import BulkWorker
from workers.runtime.celery_options import worker_options

logger = logging.getLogger(__name__)


def handlers() -> dict[RunKind, RunHandler]:
    """The handler of each kind of run."""
    from workers.bulk.augment import cancel_augmentation, handle_augmentation
    from workers.bulk.export import handle_export
    from workers.bulk.import_dataset import handle_dataset

    return {
        RunKind.DATASET: RunHandler(handle_dataset),
        RunKind.AUGMENTATION: RunHandler(handle_augmentation, cancel_augmentation),
        RunKind.EXPORT: RunHandler(handle_export),
    }


def create_bulk_app(settings: Settings, worker: BulkWorker) -> Celery:
    """The Celery application of ``worker``. If the process dies, the sweeper requeues the runs it was executing."""
    app = Celery("twinset-bulk", set_as_current=False)
    app.conf.update(run_celery_options(settings) | worker_options(settings.bulk_threads))
    kinds = handlers()

    def execute(run: str) -> str:
        """Executes one delivery of a run; returns its outcome."""
        run_id = parse_run_id(run)
        if run_id is None:
            logger.warning("dropped a message without a valid run id: run=%.80r", run)
            return RunOutcome.NOTHING_TO_DO.value
        return execute_run(worker, run_id, kinds).value

    app.task(execute, name=RUN_TASK, shared=False, acks_late=True, ignore_result=True)
    return app
