"""One worker process for runs: Celery, the extra threads, the sweeper and the other periodic tasks, until SIGTERM."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from functools import partial

from celery import signals

from service.kit.run_kinds import RunKind
from workers.bulk.celery_app import create_bulk_app
from workers.bulk.context import RunHandler
from workers.bulk.execute import Alone, execute_run
from workers.bulk.metrics import BulkCollector
from workers.bulk.sweeper import RunSweeper
from workers.bulk.worker import BulkWorker
from workers.maintenance.webhook_sender import WebhookSender
from workers.runtime.heartbeat import HeartbeatFile
from workers.runtime.metrics_server import serve_metrics
from workers.runtime.slots import ExtraThreads

logger = logging.getLogger("twinset.bulk")


def run_worker(
    worker: BulkWorker, kinds: Mapping[RunKind, RunHandler], *, alone: Alone | None, options: argparse.Namespace
) -> int:
    """Runs ``worker`` with the handlers of its runs; returns the process's exit code."""
    settings, queue = worker.settings, worker.slots.queue.group.queues[0]
    app = create_bulk_app(settings, worker, kinds, queue=queue)
    extra = ExtraThreads(
        "extra",
        worker.slots,
        partial(execute_run, worker, kinds=kinds, alone=alone),
        lambda: worker.shutdown.requested,
    )
    sweeper = RunSweeper(worker)
    sender = WebhookSender(worker)
    heartbeat = HeartbeatFile(settings.heartbeat_file, app, worker.redis, lambda: worker.renewer.hangs)

    def request_shutdown(**_: object) -> None:
        worker.shutdown.request()

    def keep_logging(**_: object) -> None:
        """Handler of ``setup_logging``: with one connected, Celery leaves our logging as it is."""

    signals.setup_logging.connect(keep_logging, weak=False)
    signals.worker_shutting_down.connect(request_shutdown, weak=False)
    if options.metrics_port:
        serve_metrics(BulkCollector(worker), options.metrics_port, options.metrics_host)
    celery_worker = app.Worker(
        hostname=f"{worker.name}@twinset", without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True
    )
    logger.info(
        "worker %s: %d runs of %s at once, store %s", worker.name, worker.slots.count, queue, settings.store_url
    )
    heartbeat.start()
    # a training takes its device for hours: nothing is begun beside it
    if worker.slots.count > 1:
        extra.start()
    sweeper.start()
    sender.start()
    try:
        celery_worker.start()
    finally:
        worker.shutdown.request()
        if worker.slots.count > 1:
            extra.stop()
        sweeper.stop()
        sender.stop()
        heartbeat.stop()
        worker.close()
    logger.info("worker %s has stopped", worker.name)
    return celery_worker.exitcode or 0
