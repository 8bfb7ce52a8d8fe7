"""Jobs with a callback URL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from service.jobs.spec import JobSpec
from service.kit.ids import new_job_id
from service.webhooks.outbox import DeliveryStatus
from service.webhooks.spec import Callback
from tests.service.webhooks.delivering import SERVICE
from tests.service.webhooks.receiver import Receiver
from tests.workers.fakes import tiny_spec
from workers.generation.chunk import generate_chunk
from workers.generation.worker import Worker


def accepted(worker: Worker, receiver: Receiver | str, **changes: Any) -> JobSpec:
    """Accepts a job with a callback URL, a while ago."""
    url = receiver if isinstance(receiver, str) else receiver.url
    then = datetime.now(UTC) - timedelta(minutes=2)
    values = {"job": new_job_id(then), "created_at": then, "count": 2, "chunk_size": 2, **changes}
    spec = tiny_spec(callback=Callback(url=url, service_url=SERVICE), **values)
    worker.repository.write_spec(spec)
    return spec


def ended(worker: Worker, receiver: Receiver | str, **changes: Any) -> JobSpec:
    """Accepts and ends a job with a callback URL."""
    spec = accepted(worker, receiver, **changes)
    for chunk in range(spec.chunks):
        generate_chunk(worker, spec.job, chunk)
    assert worker.repository.read_summary(spec.job) is not None
    return spec


def stands(worker: Worker, spec: JobSpec) -> DeliveryStatus:
    return worker.repository.outbox.read(spec.job)
