"""What a callback says: how the job ended, and where to look. The same bytes at every attempt.

It is thin on purpose: no twins and no signed links, so that it is small, and worth nothing to who overhears it.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer

from service.jobs.spec import JobSpec, Summary

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


def _in_utc(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(_in_utc, return_type=str)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class EndedJob(_Part):
    """A job that has ended."""

    id: str
    name: str | None
    state: Literal["succeeded", "partial", "failed", "cancelled"]
    done: int = Field(description="twins made and stored")
    failed: int = Field(description="samples given up")
    total: int
    reason: str | None = Field(description="why it ended as it did, where there is more to say")
    created_at: Moment
    finished_at: Moment
    links: dict[str, str] = Field(description="where the API tells more, to who may ask it")


class CallbackMessage(_Part):
    """The body of a callback."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    type: Literal["job.succeeded", "job.partial", "job.failed", "job.cancelled"]
    timestamp: Moment = Field(description="when the job ended; of the attempt tells the header webhook-timestamp")
    data: EndedJob


def message_id(job: str) -> str:
    """The ``webhook-id`` of the callback at the job's end: the same at every attempt, and nobody else's."""
    return f"{job}_ended"


def message_body(spec: JobSpec, summary: Summary) -> bytes:
    """The body of the callback, as it is signed and sent. ``spec`` is that of a job with a callback."""
    assert spec.callback is not None
    here = f"{spec.callback.service_url}/jobs/{spec.job}"
    data = EndedJob(
        id=spec.job,
        name=spec.name,
        state=summary.state.value,  # type: ignore[arg-type]
        done=summary.done,
        failed=summary.failed,
        total=summary.total,
        reason=summary.reason,
        created_at=spec.created_at,
        finished_at=summary.finished_at,
        links={"self": here, **{part: f"{here}/{part}" for part in ("samples", "manifest", "archive")}},
    )
    kind = f"job.{summary.state.value}"
    return CallbackMessage(type=kind, timestamp=summary.finished_at, data=data).model_dump_json().encode()  # type: ignore[arg-type]
