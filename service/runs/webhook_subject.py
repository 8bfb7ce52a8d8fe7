"""The subject of a callback: a job or a run, as the store has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.jobs.repository import JobRepository
from service.kit.ids import is_job_id
from service.runs.repository import RunRepository
from service.runs.webhook_payload import message_body, run_message_body
from service.store.base import ObjectStore
from service.webhooks.spec import Callback


@dataclass(frozen=True)
class Subject:
    """A job or run with its callback. ``body`` is the callback's body; None while it has not ended."""

    id: str
    tenant: str
    callback: Callback
    body: bytes | None

    def __str__(self) -> str:
        return named(self.id)


def named(subject: str) -> str:
    """An id as logs write it."""
    return f"{'job' if is_job_id(subject) else 'run'}={subject}"


def read_subject(store: ObjectStore, subject: str) -> Subject | None:
    """The job or run of that id; None if it has no callback.

    Raises :class:`UnknownJob` or :class:`UnknownRun` if there is none or it is being deleted, or the store's error.
    """
    is_job = is_job_id(subject)
    repository: JobRepository | RunRepository = JobRepository(store) if is_job else RunRepository(store)
    body_of: Callable[[Any, Any], bytes] = message_body if is_job else run_message_body
    spec = repository.read_spec(subject)
    if spec.callback is None:
        return None
    summary = repository.read_summary(subject)
    return Subject(subject, spec.tenant, spec.callback, None if summary is None else body_of(spec, summary))
