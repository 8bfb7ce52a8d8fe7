"""The bulk worker's Celery application: one task, which carries the name of a run."""

from __future__ import annotations

import logging

from celery import Celery

from service.broker.run_queue import RUN_TASK, run_celery_options
from service.kit.run_kinds import RunKind
from service.settings import Settings
from workers.bulk.context import RunHandler
from workers.bulk.execute import RunOutcome, execute_run, named_run
from workers.bulk.worker import BulkWorker
from workers.runtime.celery_options import worker_options

logger = logging.getLogger(__name__)


def handlers() -> dict[RunKind, RunHandler]:
    """What carries out each kind of run."""
    from workers.bulk.augment import augment, when_cancelled
    from workers.bulk.export import export
    from workers.bulk.import_dataset import take_in

    return {
        RunKind.DATASET: RunHandler(take_in),
        RunKind.AUGMENTATION: RunHandler(augment, when_cancelled),
        RunKind.EXPORT: RunHandler(export),
    }


def create_bulk_app(settings: Settings, worker: BulkWorker) -> Celery:
    """The application whose tasks work with ``worker``. What is in hand when the process dies is sent again by the
    sweeper."""
    app = Celery("twinset-bulk", set_as_current=False)
    app.conf.update(run_celery_options(settings) | worker_options(settings.bulk_threads))
    kinds = handlers()

    @app.task(name=RUN_TASK, shared=False, acks_late=True, ignore_result=True)
    def carry(run: str) -> str:
        """Carries out a run, as far as it goes."""
        named = named_run(run)
        if named is None:
            logger.warning("a message that names no run was dropped: run=%.80r", run)
            return RunOutcome.NOTHING_TO_DO.value
        return execute_run(worker, named, kinds).value

    return app
