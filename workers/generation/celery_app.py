"""The worker's Celery application: small tasks on threads, acknowledged when done, one in hand a thread."""

from __future__ import annotations

from celery import Celery

from service.broker.queues import celery_options
from service.settings import Settings
from workers.generation.tasks import register
from workers.generation.worker import Worker
from workers.runtime.celery_options import worker_options


def create_app(settings: Settings, worker: Worker) -> Celery:
    """The application whose tasks work with ``worker``.

    What is in hand when the process dies is delivered again by the broker after its visibility timeout, and by the
    sweeper long before.
    """
    app = Celery("twinset", set_as_current=False)
    app.conf.update(celery_options(settings) | worker_options(settings.worker_threads))
    register(app, worker)
    return app
