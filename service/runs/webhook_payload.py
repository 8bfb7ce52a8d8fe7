"""The body of a callback: how the job or run ended, and links to it. Every attempt has the same bytes.

It has no twins and no signed links, so that it is small, and worth nothing to an eavesdropper.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer

from service.jobs.spec import JobSpec, Summary
from service.kit.run_kinds import RunKind
from service.runs.spec import RunSpec, RunSummary
from service.webhooks.spec import Callback

EXAMPLE: JsonValue = {
    "type": "job.succeeded",
    "timestamp": "2026-01-31T12:00:24.100000Z",
    "data": {
        "id": "j7ybr17pesw6kn47yb0",
        "name": "shoreline, first try",
        "state": "succeeded",
        "done": 1000,
        "failed": 0,
        "total": 1000,
        "reason": None,
        "created_at": "2026-01-31T12:00:00.000000Z",
        "finished_at": "2026-01-31T12:00:24.100000Z",
        "links": {
            "self": "https://twins.example/jobs/j7ybr17pesw6kn47yb0",
            "samples": "https://twins.example/jobs/j7ybr17pesw6kn47yb0/samples",
            "manifest": "https://twins.example/jobs/j7ybr17pesw6kn47yb0/manifest",
            "archive": "https://twins.example/jobs/j7ybr17pesw6kn47yb0/archive",
        },
    },
}

RUN_EXAMPLE: JsonValue = {
    "type": "export.succeeded",
    "timestamp": "2026-01-31T12:03:10.250000Z",
    "data": {
        "id": "e7ybr17pesw6kn47yb0",
        "name": "for the training of February",
        "state": "succeeded",
        "done": 4200,
        "total": 4200,
        "reason": None,
        "created_at": "2026-01-31T12:00:00.000000Z",
        "finished_at": "2026-01-31T12:03:10.250000Z",
        "links": {
            "self": "https://twins.example/exports/e7ybr17pesw6kn47yb0",
            "files": "https://twins.example/exports/e7ybr17pesw6kn47yb0/files",
        },
    },
}
_LINKED = {RunKind.EXPORT: ("files",), RunKind.AUGMENTATION: ("samples",), RunKind.TRAINING: ("checkpoints",)}
"""Paths below a run's, where the API lists what a run of that kind has made."""


def _in_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(_in_utc, return_type=str)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class EndedJob(_Part):
    """A job that has ended."""

    id: str
    name: str | None
    state: Literal["succeeded", "partial", "failed", "cancelled"]
    done: int = Field(description="twins made and stored")
    failed: int = Field(description="samples that failed")
    total: int
    reason: str | None = Field(description="why it ended as it did, where there is more to say")
    created_at: Moment
    finished_at: Moment
    links: dict[str, str] = Field(description="where the API has more, with an API key")


class CallbackMessage(_Part):
    """The body of a callback."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    type: Literal["job.succeeded", "job.partial", "job.failed", "job.cancelled"]
    timestamp: Moment = Field(
        description="when the job ended; the header webhook-timestamp has the moment of the attempt"
    )
    data: EndedJob


class EndedRun(_Part):
    """An export, an augmentation set or a training that has ended."""

    id: str
    name: str | None
    state: Literal["succeeded", "partial", "failed", "cancelled"]
    done: int = Field(description="items written, twins accepted, or iterations")
    total: int | None = Field(description="items in all, or twins wanted")
    reason: str | None = Field(description="why it ended as it did, where there is more to say")
    created_at: Moment
    finished_at: Moment
    links: dict[str, str] = Field(description="where the API has more, with an API key")


class RunCallbackMessage(_Part):
    """The body of the callback of an export, an augmentation set or a training."""

    model_config = ConfigDict(json_schema_extra={"examples": [RUN_EXAMPLE]})

    type: Literal[
        "export.succeeded",
        "export.partial",
        "export.failed",
        "export.cancelled",
        "augmentation.succeeded",
        "augmentation.partial",
        "augmentation.failed",
        "augmentation.cancelled",
        "training.succeeded",
        "training.failed",
        "training.cancelled",
    ]
    timestamp: Moment = Field(
        description="when the run ended; the header webhook-timestamp has the moment of the attempt"
    )
    data: EndedRun


def message_id(subject: str) -> str:
    """The ``webhook-id`` of the callback at the end of a job or a run: unique, and the same at every attempt."""
    return f"{subject}_ended"


def message_body(spec: JobSpec, summary: Summary) -> bytes:
    """The body of a job's callback, as it is signed and sent. The job has a callback."""
    here = _here(spec.callback, f"jobs/{spec.job}")
    links = _links(here, ("samples", "manifest", "archive"))
    data = EndedJob(id=spec.job, failed=summary.failed, links=links, **_ended(spec, summary))
    kind = f"job.{summary.state.value}"
    return CallbackMessage(type=kind, timestamp=summary.finished_at, data=data).model_dump_json().encode()


def run_message_body(spec: RunSpec, summary: RunSummary) -> bytes:
    """The body of a run's callback. The run has a callback, and is of a kind with callbacks."""
    here = _here(spec.callback, f"{spec.kind.plural}/{spec.run}")
    data = EndedRun(id=spec.run, links=_links(here, _LINKED[spec.kind]), **_ended(spec, summary))
    kind = f"{spec.kind.value}.{summary.state.value}"
    return RunCallbackMessage(type=kind, timestamp=summary.finished_at, data=data).model_dump_json().encode()


def _ended(spec: JobSpec | RunSpec, summary: Summary | RunSummary) -> dict[str, Any]:
    """The members that jobs and runs share."""
    return {
        "name": spec.name,
        "state": summary.state.value,
        "done": summary.done,
        "total": summary.total,
        "reason": summary.reason,
        "created_at": spec.created_at,
        "finished_at": summary.finished_at,
    }


def _here(callback: Callback | None, path: str) -> str:
    assert callback is not None
    return f"{callback.service_url}/{path}"


def _links(here: str, parts: tuple[str, ...]) -> dict[str, str]:
    return {"self": here, **{part: f"{here}/{part}" for part in parts}}
