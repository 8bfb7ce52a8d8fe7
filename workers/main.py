"""``python -m workers.main``: one worker process, until SIGTERM.

SIGTERM (or Ctrl-C) asks it to stop: it takes no more chunks, finishes what it can within the grace time, hands the rest
back to the queue and ends. A second one changes nothing; killing it outright loses nothing either.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from workers.runtime.malloc import keep_memory
from workers.runtime.metrics_server import add_metrics_arguments

DEVICE_LOST = 70
"""The exit code of a worker whose GPU is lost (EX_SOFTWARE): it must be started afresh."""

logger = logging.getLogger("twinset.worker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the worker of ``TWINSET_*``; returns the process's exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    # read by OpenMP as it is loaded with torch: threads that wait for work must not spin the cores away from the others
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_memory()

    from service.errors import TwinsetError
    from service.settings import get_settings

    try:
        settings = get_settings()
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        _quieten()
        return _run(options)
    except TwinsetError as error:
        print(f"twinset worker: {error.detail}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    from celery import signals

    from service.registry.catalogue import Catalogue
    from service.settings import get_settings
    from workers.engine.peak import matmul_rate
    from workers.generation.celery_app import create_app
    from workers.generation.sweeper import Sweeper
    from workers.generation.warmup import warm_up
    from workers.generation.worker import open_worker
    from workers.maintenance.garbage_collector import Deleter
    from workers.maintenance.webhook_sender import WebhookSender
    from workers.models.cache import device_and_dtype

    settings = get_settings()
    worker = open_worker(settings, grace_s=options.grace_s)
    app = create_app(settings, worker)
    sweeper = Sweeper(worker)
    deliverer = WebhookSender(worker)
    deleter = Deleter(worker)

    def asked_to_stop(**_: object) -> None:
        worker.shutdown.ask()

    # the logging set up above stays: Celery leaves it alone once somebody listens here
    signals.setup_logging.connect(_leave_logging, weak=False)
    signals.worker_shutting_down.connect(asked_to_stop, weak=False)
    if options.metrics_port:
        from workers.generation.collector import expose

        # while nothing else computes, for utilisation is measured against it
        matmul_rate(*device_and_dtype(settings), worker.models.cpu_threads)
        expose(worker, options.metrics_port, options.metrics_host)
    for model in options.warm:
        warm_up(worker, Catalogue(worker.repository.store).resolve(model).id)
    program = app.Worker(
        hostname=f"{worker.name}@twinset", without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True
    )
    logger.info("worker %s: %d chunks at once, store %s", worker.name, settings.worker_threads, settings.store_url)
    sweeper.start()
    deliverer.start()
    deleter.start()
    try:
        program.start()
    finally:
        worker.shutdown.ask()
        sweeper.stop()
        deliverer.stop()
        deleter.stop()
        worker.close()
    logger.info("worker %s has stopped", worker.name)
    if worker.engine.device_lost:
        logging.shutdown()
        # the usual end would free memory of a device that answers no more
        os._exit(DEVICE_LOST)
    return program.exitcode or 0


def _quieten() -> None:
    """Keeps from the log what says nothing here."""
    # our own line for each chunk says more than Celery's two
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Celery warns of root because of pickled messages; ours are JSON, and nothing else is accepted
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")


def _leave_logging(**_: object) -> None:
    """Listened to by Celery in the place of setting up its own logging."""


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="twinset worker", description="Makes twins for queued jobs. Settings: TWINSET_*."
    )
    parser.add_argument(
        "--grace-s", type=float, default=8.0, help="seconds that work in hand may go on after SIGTERM (default: 8)"
    )
    parser.add_argument(
        "--warm",
        action="append",
        default=[],
        metavar="MODEL",
        help="load this model at the start and make a first twin of it, kept nowhere; may be repeated",
    )
    add_metrics_arguments(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
