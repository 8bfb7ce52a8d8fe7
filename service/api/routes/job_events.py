"""``GET /jobs/{job}/events``: a job's progress as server-sent events."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.auth import KeyedRoute
from service.api.own_jobs import OwnJob
from service.api.schemas.jobs import job_view
from service.api.services import Services, ServicesDep
from service.api.sse import EventSource, LastEventId, events_operation, events_response
from service.jobs.progress import Progress
from service.jobs.spec import JobSpec

router = APIRouter(route_class=KeyedRoute, tags=["jobs"])


@router.get(
    "/jobs/{job}/events",
    summary="Follow a job",
    **events_operation(
        "job",
        "JobView",
        "/jobs/{job}",
        'id: 48.376.0.running\nevent: progress\ndata: {"id":"j7ybr17pesw6kn47yb0","state":"running",...}\n\n',
    ),
)
async def follow_job(spec: OwnJob, services: ServicesDep, last_event_id: LastEventId = None) -> Response:
    """The job's progress now, then at each change until it has ended; a comment at least every 15 s."""
    return await events_response(services, spec.tenant, job_events_source(services, spec), last_event_id)


def job_events_source(services: Services, spec: JobSpec) -> EventSource[Progress]:
    """The source of a job's events."""
    prefix = services.path("")
    return EventSource(
        spec.job,
        lambda: services.progress.read(spec),
        event_id,
        lambda progress: job_view(spec, progress, prefix=prefix),
    )


def event_id(progress: Progress) -> str:
    """The id of a snapshot: its sequence number and counts. A change of the rate alone is not an event."""
    stalled = ".stalled" if progress.stalled is not None else ""
    return f"{progress.sequence}.{progress.done}.{progress.failed or 0}.{progress.state.value}{stalled}"
