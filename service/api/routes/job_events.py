"""``GET /jobs/{job}/events``: a job's progress as server-sent events."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.auth import KeyedRoute
from service.api.own_jobs import OwnJob
from service.api.schemas.jobs import job_view
from service.api.services import Services, ServicesDep
from service.api.sse import Followed, LastEventId, answer_events, described_events
from service.jobs.progress import Progress
from service.jobs.spec import JobSpec

router = APIRouter(route_class=KeyedRoute, tags=["jobs"])


@router.get(
    "/jobs/{job}/events",
    summary="Follow a job",
    **described_events(
        "job",
        "JobView",
        "/jobs/{job}",
        'id: 48.376.0.running\nevent: progress\ndata: {"id":"j7ybr17pesw6kn47yb0","state":"running",...}\n\n',
    ),
)
async def follow_job(spec: OwnJob, services: ServicesDep, last_event_id: LastEventId = None) -> Response:
    """The job's progress now, then at each change until it has ended; a comment at least every 15 s."""
    return await answer_events(services.watcher, followed_job(services, spec), last_event_id)


def followed_job(services: Services, spec: JobSpec) -> Followed[Progress]:
    """The job as it is followed."""
    prefix = services.path("")
    return Followed(
        spec.job,
        lambda: services.progress.read(spec),
        event_id,
        lambda progress: job_view(spec, progress, prefix=prefix),
    )


def event_id(progress: Progress) -> str:
    """Names a snapshot by its sequence number and what counts in it; a rate that wavers is no news."""
    stalled = ".stalled" if progress.stalled is not None else ""
    return f"{progress.sequence}.{progress.done}.{progress.failed or 0}.{progress.state.value}{stalled}"
