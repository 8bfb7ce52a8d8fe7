"""``python -m workers.bulk.main``: one bulk worker process, until SIGTERM.

It imports datasets, fills augmentation sets and writes exports; it loads no torch and needs no GPU. On SIGTERM it
releases its runs at their next item, so that another worker continues them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from workers.runtime.metrics_server import add_metrics_arguments


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
    from service.settings import get_settings
    from workers.bulk.alone import execute_alone
    from workers.bulk.handlers import handlers
    from workers.bulk.process import run_worker
    from workers.bulk.worker import open_bulk_worker

    worker = open_bulk_worker(get_settings())
    return run_worker(worker, handlers(), alone=execute_alone, options=options)


if __name__ == "__main__":
    sys.exit(main())
