"""``GET /jobs/{id}/events``: a job's progress as server-sent events, with or without Redis.

Every event is a whole snapshot, so a client that missed some has missed nothing once it has the next. An event's id
names its snapshot: one who comes back with ``Last-Event-ID``, to whichever process, hears only of what has changed since.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from service.api.access import KeyedRoute, OwnJob
from service.api.openapi import answers
from service.api.services import ServicesDep
from service.api.views import job_view
from service.api.watching import JobWatcher
from service.jobs.progress import Progress
from service.jobs.spec import JobSpec

router = APIRouter(route_class=KeyedRoute, tags=["jobs"])
HEARTBEAT_S = 15.0
_RETRY_MS = 2000
_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Send it as Last-Event-ID to hear only of what is new."},
        "event": {"enum": ["progress", "ended"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/JobView"},
        },
    },
    "required": ["id", "event", "data"],
}


@router.get(
    "/jobs/{job}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events `progress`, and at last `ended`; the data is the job, as GET /jobs/{job} answers it.",
            "content": {
                "text/event-stream": {
                    # of each event, as OpenAPI 3.2 has it, and FastAPI for its own events already
                    "itemSchema": _EVENT,
                    "example": 'id: 48.376.0.running\nevent: progress\ndata: {"id":"j7ybr17pesw6kn47yb0","state":"running",...}\n\n',
                }
            },
        },
        204: {"description": "The job has ended and you have heard so: do not come back."},
        **answers(404, 503),
    },
)
async def follow_job(
    spec: OwnJob,
    services: ServicesDep,
    last_event_id: Annotated[str | None, Header(description="Id of the last event heard.")] = None,
) -> Response:
    """The job's progress now, then at each change until it has ended; a comment at least every 15 s."""
    if last_event_id is not None:
        now = await run_in_threadpool(services.progress.read, spec)
        if now.state.ended and event_id(now) == last_event_id:
            return Response(status_code=204)
    events = event_stream(services.watcher, spec, prefix=services.path(""), last_event_id=last_event_id)
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        # A proxy that buffers or transforms would hold the events back.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def event_stream(
    watcher: JobWatcher,
    spec: JobSpec,
    *,
    prefix: str = "",
    last_event_id: str | None = None,
    heartbeat_s: float = HEARTBEAT_S,
) -> AsyncGenerator[str, None]:
    """The events of a job, as text, until it has ended."""
    heard = last_event_id
    yield f"retry: {_RETRY_MS}\n\n"
    async with aclosing(watcher.watch(spec, beat_s=heartbeat_s)) as changes:
        async for progress in changes:
            here = event_id(progress)
            if here == heard:
                yield ": still here\n\n"
                continue
            heard = here
            kind = "ended" if progress.state.ended else "progress"
            data = job_view(spec, progress, prefix=prefix).model_dump_json()
            yield f"id: {here}\nevent: {kind}\ndata: {data}\n\n"


def event_id(progress: Progress) -> str:
    """Names a snapshot by its sequence number and what counts in it; a rate that wavers is no news."""
    trouble = ".trouble" if progress.trouble is not None else ""
    return f"{progress.sequence}.{progress.done}.{progress.failed or 0}.{progress.state.value}{trouble}"
