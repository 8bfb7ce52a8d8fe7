"""``python -m workers.bulk.main``: one bulk worker process, until SIGTERM.

It imports datasets, fills augmentation sets and writes exports; it loads no torch and needs no GPU. On SIGTERM it
releases its runs at their next item, so that another worker continues them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial

from workers.runtime.metrics_server import add_metrics_arguments

logger = logging.getLogger("twinset.bulk")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a worker with the settings of ``TWINSET_*``; returns the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="twinset worker --bulk",
        description="Run a bulk worker: it imports datasets, fills augmentation sets and writes exports. "
        "Settings: TWINSET_*.",
    )
    add_metrics_arguments(parser)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)

    from service.errors import TwinsetError
    from service.kit.log_format import configure_logging
    from service.kit.tracing import configure_tracing
    from service.settings import get_settings

    try:
        settings = get_settings()
        configure_logging(settings.log_level, settings.log_format)
        configure_tracing(settings.otel_endpoint, "twinset-bulk")
        from workers.runtime.celery_logging import quiet_celery

        quiet_celery()
        return _run(options)
    except TwinsetError as error:
        print(f"twinset worker --bulk: {error.detail}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    from celery import signals

    from service.settings import get_settings
    from workers.bulk.alone import execute_alone
    from workers.bulk.celery_app import create_bulk_app
    from workers.bulk.execute import execute_run
    from workers.bulk.handlers import handlers
    from workers.bulk.metrics import BulkCollector
    from workers.bulk.sweeper import RunSweeper
    from workers.bulk.worker import open_bulk_worker
    from workers.maintenance.webhook_sender import WebhookSender
    from workers.runtime.heartbeat import HeartbeatFile
    from workers.runtime.metrics_server import serve_metrics
    from workers.runtime.slots import ExtraThreads

    settings = get_settings()
    worker = open_bulk_worker(settings)
    app = create_bulk_app(settings, worker)
    extra = ExtraThreads(
        "extra",
        worker.slots,
        partial(execute_run, worker, kinds=handlers(), alone=execute_alone),
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
    logger.info("bulk worker %s: %d runs at once, store %s", worker.name, settings.bulk_threads, settings.store_url)
    heartbeat.start()
    extra.start()
    sweeper.start()
    sender.start()
    try:
        celery_worker.start()
    finally:
        worker.shutdown.request()
        extra.stop()
        sweeper.stop()
        sender.stop()
        heartbeat.stop()
        worker.close()
    logger.info("bulk worker %s has stopped", worker.name)
    return celery_worker.exitcode or 0


if __name__ == "__main__":
    sys.exit(main())
