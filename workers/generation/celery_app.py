"""The worker's Celery application: small tasks on threads, one at a time a thread, acknowledged when done."""

from __future__ import annotations

from celery import Celery

from service.broker.queues import celery_options
from service.settings import Settings
from workers.generation.tasks import register
from workers.generation.worker import Worker
from workers.runtime.celery_options import worker_options


def create_app(settings: Settings, worker: Worker) -> Celery:
    """The application whose tasks use ``worker``.

    If the process dies, the broker delivers its messages again after the visibility timeout; the sweeper sends their
    chunks long before that.
    """
    app = Celery("twinset", set_as_current=False)
    app.conf.update(celery_options(settings) | worker_options(settings.worker_threads))
    register(app, worker)
    return app
