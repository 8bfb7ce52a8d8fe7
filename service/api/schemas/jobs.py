"""Views of jobs, samples, uploads and models. Times are in UTC, durations in seconds, rates in twins per second."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.api.schemas.unreadable import WithUnreadable
from service.jobs.parameters import GenerationParameters
from service.jobs.progress import Progress
from service.jobs.request import EXAMPLE_UPLOAD
from service.jobs.spec import ItemClass, JobSpec
from service.kit.states import JobState
from service.runs.webhook_payload import message_id
from service.webhooks.outbox import CallbackState, DeliveryStatus
from service.webhooks.spec import Callback

JOB_EXAMPLE: JsonValue = {
    "id": "j7ybr17pesw6kn47yb0",
    "name": "shoreline, first try",
    "state": "running",
    "sequence": 48,
    "done": 376,
    "failed": 0,
    "total": 1000,
    "rate": 41.5,
    "seconds_left": 15.0,
    "created_at": "2026-01-31T12:00:00Z",
    "started_at": None,
    "finished_at": None,
    "seconds": None,
    "reason": None,
    "stalled": None,
    "callback": None,
    "retry_of": None,
    "retried_by": None,
    "parameters": {
        "model": "cosimgen-dubai@1.2.0",
        "prompt": None,
        "classes": ["vegetation", "water"],
        "mask": None,
        "mask_encoding": None,
        "count": 1000,
        "seed": 42,
        "steps": 50,
        "guidance_scale": 2.0,
        "guidance_target": None,
        "eta": 0.0,
        "size": 256,
        "priority": "normal",
        "layout": "shards",
    },
    "links": {
        "self": "/jobs/j7ybr17pesw6kn47yb0",
        "samples": "/jobs/j7ybr17pesw6kn47yb0/samples",
        "events": "/jobs/j7ybr17pesw6kn47yb0/events",
        "manifest": "/jobs/j7ybr17pesw6kn47yb0/manifest",
        "archive": "/jobs/j7ybr17pesw6kn47yb0/archive",
        "model": "/models/cosimgen-dubai@1.2.0",
    },
}


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class AttemptView(_View):
    """One attempt at a webhook: the receiver's answer, or why there was none."""

    at: datetime
    seconds: float = Field(description="duration of the attempt")
    status: int | None = Field(description="status of the answer; 2xx: delivered, 410: no further attempt")
    error: str | None


class CallbackView(_View):
    """The webhook of a job, an export or an augmentation set, and the attempts to deliver it."""

    id: str = Field(description="its webhook-id, the same at every attempt")
    url: str
    state: CallbackState = Field(
        description="waiting for the end; pending until accepted; delivered; or failed, after about a day or a 410"
    )
    attempts: tuple[AttemptView, ...] = Field(description="oldest first")
    next_at: datetime | None = Field(description="time of the next attempt; null for at once, or never")


class StalledView(_View):
    """What stops a job for now, through no fault of its own."""

    since: datetime
    reason: str = Field(description="what failed, and the remedy")


class JobView(_View):
    """A job."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    id: str
    name: str | None
    state: JobState
    sequence: int = Field(description="never decreases: of two answers, the one with the larger number is newer")
    done: int = Field(description="twins made and stored")
    failed: int | None = Field(description="failed samples; null while not all are counted")
    total: int
    rate: float | None = Field(description="twins per second: recent, or over the whole job once it has ended")
    seconds_left: float | None = Field(description="estimate; null while unknown")
    created_at: datetime
    started_at: datetime | None = Field(description="known once the job has ended")
    finished_at: datetime | None
    seconds: float | None = Field(description="from acceptance to the end")
    reason: str | None = Field(description="why the job ended as it did, if there is more to say")
    stalled: StalledView | None = Field(
        description="while twins cannot be stored (store failure, full disk): since when and why; the job continues by "
        "itself, and this is null again"
    )
    callback: CallbackView | None = Field(description="null if the request had no callback_url")
    retry_of: str | None = Field(description="the job whose missing twins this one makes, under the same indices")
    retried_by: str | None = Field(description="the job that retries this one's missing twins, if there is one")
    parameters: GenerationParameters
    links: dict[str, str]


class JobPage(_View, WithUnreadable):
    """Jobs, newest first. A page may have fewer jobs than requested; the last page has no ``next_cursor``."""

    jobs: list[JobView]
    next_cursor: str | None


class UploadView(_View):
    """An uploaded file."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"upload": EXAMPLE_UPLOAD, "bytes": 72, "width": 8, "height": 8}]}
    )

    upload: str = Field(description="its id, for masks of requests: the sha256 of its bytes")
    bytes: int
    width: int = Field(description="in pixels")
    height: int = Field(description="in pixels")


class SampleFileView(_View):
    """An image or a mask."""

    url: str = Field(description="signed link: anyone who has it can read the file until it expires")
    sha256: str
    bytes: int


class SampleView(_View):
    """One twin; or one failed sample, with ``error`` and without files."""

    index: int
    seed: int
    classes: tuple[ItemClass, ...] = Field(description="classes found in the mask, with their share of its pixels")
    confident_share: float | None = Field(
        description="share of the mask's pixels that are confident, 0 to 1; null if the model made no mask"
    )
    mean_confidence: float | None = Field(description="mean confidence over the mask's pixels, 0 to 1; null likewise")
    image: SampleFileView | None
    mask: SampleFileView | None = Field(description="null if there is none, as for a mask model with a prompt alone")
    instances: SampleFileView | None = Field(
        description="the number of each pixel's object, 16 bits; null where objects are the mask's connected regions"
    )
    error: str | None


class SamplePage(_View):
    """Samples by index. While the job runs, new ones may appear, also before the cursor."""

    samples: list[SampleView]
    next_cursor: str | None
    links_expire_at: datetime


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="the kind of error, as a path that serves its description")
    title: str
    status: int
    detail: str = Field(description="the value, the limit and the remedy")
    instance: str
    errors: list[dict[str, Any]] | None = Field(
        None,
        description="each fault of an invalid request: a JSON pointer into the body, or a parameter, and its detail",
    )


def job_view(spec: JobSpec, progress: Progress, *, prefix: str) -> JobView:
    """The job as answered; ``prefix`` precedes the paths of its links."""
    here = f"{prefix}/jobs/{spec.job}"
    related = {"retry_of": spec.retry_of, "retried_by": progress.retried_by}
    return JobView(
        id=spec.job,
        name=spec.name,
        state=progress.state,
        sequence=progress.sequence,
        done=progress.done,
        failed=progress.failed,
        total=progress.total,
        rate=progress.rate,
        seconds_left=progress.seconds_left,
        created_at=spec.created_at,
        started_at=progress.started_at,
        finished_at=progress.finished_at,
        seconds=progress.seconds,
        reason=progress.reason,
        stalled=None
        if progress.stalled is None
        else StalledView(since=progress.stalled.since, reason=progress.stalled.reason),
        callback=callback_view(spec.job, spec.callback, progress.callback),
        retry_of=spec.retry_of,
        retried_by=progress.retried_by,
        parameters=spec.parameters,
        links={
            "self": here,
            "samples": f"{here}/samples",
            "events": f"{here}/events",
            "manifest": f"{here}/manifest",
            "archive": f"{here}/archive",
            "model": f"{prefix}/models/{spec.model}",
            **{name: f"{prefix}/jobs/{job}" for name, job in related.items() if job is not None},
        },
    )


def as_json(view: BaseModel) -> bytes:
    """The view as JSON, without the second validation that FastAPI would do."""
    return view.model_dump_json().encode()


def callback_view(subject: str, callback: Callback | None, status: DeliveryStatus | None) -> CallbackView | None:
    """The webhook as answered; None if the request had no callback_url."""
    if callback is None or status is None:
        return None
    attempts = tuple(AttemptView(at=a.at, seconds=a.seconds, status=a.status, error=a.error) for a in status.attempts)
    return CallbackView(
        id=message_id(subject), url=callback.url, state=status.state, attempts=attempts, next_at=status.next_at
    )
