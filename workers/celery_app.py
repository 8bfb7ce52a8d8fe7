"""The worker's Celery application: small tasks on threads, acknowledged when done, one in hand a thread."""

from __future__ import annotations

from celery import Celery

from service.queue import celery_options
from service.settings import Settings
from workers.tasks import register
from workers.worker import Worker


def create_app(settings: Settings, worker: Worker) -> Celery:
    """The application whose tasks work with ``worker``.

    Threads and never forks: a process that has loaded torch must not be copied. What is in hand when the process dies is
    delivered again by the broker after its visibility timeout, and by the sweeper long before.
    """
    app = Celery("twinset", set_as_current=False)
    app.conf.update(celery_options(settings))
    app.conf.update(
        worker_pool="threads",
        worker_concurrency=settings.worker_threads,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # a chunk goes on while the broker is away: its record does not need one
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_max_retries=None,
    )
    register(app, worker)
    return app
