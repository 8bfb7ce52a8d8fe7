"""``python -m workers.main``: one worker process, until SIGTERM.

On SIGTERM (or Ctrl-C) it claims no more chunks, finishes what it can within the grace time, requeues the rest and ends.
A second signal changes nothing. Killing the process loses nothing either.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial

from workers.runtime.malloc import keep_memory
from workers.runtime.metrics_server import add_metrics_arguments

DEVICE_LOST = 70
"""Exit code of a worker whose GPU is lost (EX_SOFTWARE): the process must be restarted."""

logger = logging.getLogger("twinset.worker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a worker with the settings of ``TWINSET_*``; returns the process's exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    # OpenMP reads this when torch loads it: threads that wait for work must not spin and take the cores from the others
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_memory()

    from service.errors import TwinsetError
    from service.kit.log_format import configure_logging
    from service.kit.tracing import configure_tracing
    from service.settings import get_settings

    try:
        settings = get_settings()
        configure_logging(settings.log_level, settings.log_format)
        configure_tracing(settings.otel_endpoint, "twinset-worker")
        from workers.runtime.celery_logging import quiet_celery

        quiet_celery()
        return _run(options)
    except TwinsetError as error:
        print(f"twinset worker: {error.detail}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    from celery import signals

    from service.broker.queues import INTERACTIVE_QUEUE
    from service.registry.catalogue import Catalogue
    from service.registry.references import owner_named_in
    from service.settings import get_settings
    from workers.engine.peak import matmul_rate
    from workers.generation.celery_app import create_app
    from workers.generation.sweeper import Sweeper
    from workers.generation.tasks import make
    from workers.generation.warmup import warm_up
    from workers.generation.worker import open_worker
    from workers.maintenance.garbage_collector import GarbageCollector
    from workers.maintenance.repairer import Repairer
    from workers.maintenance.webhook_sender import WebhookSender
    from workers.models.cache import device_and_dtype
    from workers.runtime.heartbeat import HeartbeatFile
    from workers.runtime.interactive_mark import InteractiveMark
    from workers.runtime.slots import ExtraThreads

    settings = get_settings()
    worker = open_worker(settings, grace_s=options.grace_s)
    app = create_app(settings, worker)
    extra = ExtraThreads("extra", worker.slots, partial(make, worker), lambda: worker.shutdown.requested)
    sweeper = Sweeper(worker)
    sender = WebhookSender(worker)
    garbage_collector = GarbageCollector(worker)
    repairer = Repairer(worker)
    mark = InteractiveMark(worker.redis, lambda: worker.slots.holds(INTERACTIVE_QUEUE))
    heartbeat = HeartbeatFile(settings.heartbeat_file, app, worker.redis, lambda: worker.claims.renewer.hangs)

    def request_shutdown(**_: object) -> None:
        worker.shutdown.request()

    signals.setup_logging.connect(_keep_logging, weak=False)
    signals.worker_shutting_down.connect(request_shutdown, weak=False)
    if options.metrics_port:
        from workers.generation.collector import expose

        # measured while nothing else computes, for utilisation is relative to it
        matmul_rate(*device_and_dtype(settings), worker.models.cpu_threads)
        expose(worker, options.metrics_port, options.metrics_host)
    for model in options.warm:
        warm_up(worker, Catalogue(worker.repository.store).find(model, tenant=owner_named_in(model)).key)
    celery_worker = app.Worker(
        hostname=f"{worker.name}@twinset", without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True
    )
    logger.info("worker %s: %d chunks at once, store %s", worker.name, settings.worker_threads, settings.store_url)
    heartbeat.start()
    extra.start()
    sweeper.start()
    sender.start()
    garbage_collector.start()
    repairer.start()
    mark.start()
    try:
        celery_worker.start()
    finally:
        worker.shutdown.request()
        extra.stop()
        sweeper.stop()
        sender.stop()
        garbage_collector.stop()
        repairer.stop()
        mark.stop()
        heartbeat.stop()
        worker.close()
    logger.info("worker %s has stopped", worker.name)
    if worker.engine.device_lost:
        logging.shutdown()
        # a normal exit would free memory of a device that no longer answers
        os._exit(DEVICE_LOST)
    return celery_worker.exitcode or 0


def _keep_logging(**_: object) -> None:
    """Handler of ``setup_logging``: with one connected, Celery leaves our logging as it is."""


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="twinset worker", description="Run a worker: it makes the twins of queued jobs. Settings: TWINSET_*."
    )
    parser.add_argument(
        "--grace-s", type=float, default=8.0, help="seconds to finish running chunks after SIGTERM (default: 8)"
    )
    parser.add_argument(
        "--warm",
        action="append",
        default=[],
        metavar="MODEL",
        help="load this model at the start and make a test twin, which is not stored; may be repeated",
    )
    add_metrics_arguments(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
