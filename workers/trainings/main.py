"""``python -m workers.trainings.main``: one training worker process, until SIGTERM.

It takes one training at a time, and loads no torch itself: child processes train. On SIGTERM the child writes a
checkpoint, and another worker continues from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from workers.runtime.metrics_server import add_metrics_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a worker with the settings of ``TWINSET_*``; returns the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="twinset worker --train",
        description="Run a training worker: it trains models, one at a time. Settings: TWINSET_*.",
    )
    parser.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="GPUs of one training, a process each (default: 1)"
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
        configure_tracing(settings.otel_endpoint, "twinset-training")
        from workers.runtime.celery_logging import quiet_celery

        quiet_celery()
        return _run(options)
    except TwinsetError as error:
        print(f"twinset worker --train: {error.detail}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    from service.broker.run_queue import TRAIN_QUEUES
    from service.kit.run_kinds import RunKind
    from service.settings import get_settings
    from workers.bulk.process import run_worker
    from workers.bulk.worker import open_bulk_worker
    from workers.trainings.handler import training_handler
    from workers.trainings.stage import SHUTDOWN_GRACE_S

    worker = open_bulk_worker(get_settings(), queues=TRAIN_QUEUES, slots=1, grace_s=SHUTDOWN_GRACE_S + 10)
    kinds = {RunKind.TRAINING: training_handler(options.gpus)}
    return run_worker(worker, kinds, alone=None, options=options)


if __name__ == "__main__":
    sys.exit(main())
