"""Progress of jobs and runs as server-sent events.

Every event is a complete snapshot, so a client that missed some events has everything again with the next one. An
event's id identifies its snapshot: a client that reconnects with ``Last-Event-ID``, to any process, gets only changes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Generic

from fastapi import Header
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from service.api.openapi import answers
from service.api.services import Services
from service.api.slots import HeldStream
from service.api.watcher import Seen, Watcher
from service.errors import UnknownRun

HEARTBEAT_S = 15.0
_RETRY_MS = 2000
LastEventId = Annotated[str | None, Header(description="Id of the last event received.")]


@dataclass(frozen=True)
class EventSource(Generic[Seen]):
    """The source of a stream: a job's or run's id, its snapshots, and for a snapshot its event id and its data.

    ``read`` and ``view`` may wait for the store and Redis. The stream ends when ``read`` raises UnknownRun.
    """

    id: str
    read: Callable[[], Seen]
    event_id: Callable[[Seen], str]
    view: Callable[[Seen], BaseModel]


async def events_response(
    services: Services, tenant: str, source: EventSource[Any], last_event_id: str | None
) -> Response:
    """The response with the events; 204 if the client has received the last one already."""
    if last_event_id is not None:
        now = await services.watcher.in_thread(source.read)
        if now.state.ended and source.event_id(now) == last_event_id:
            return Response(status_code=204)
    return HeldStream(
        event_stream(services.watcher, source, last_event_id=last_event_id),
        slots=services.streams,
        tenant=tenant,
        media_type="text/event-stream",
        # A proxy that buffers or transforms would delay the events.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def event_stream(
    watcher: Watcher, source: EventSource[Any], *, last_event_id: str | None = None, heartbeat_s: float = HEARTBEAT_S
) -> AsyncGenerator[str, None]:
    """The events as text, until the job or run has ended."""
    sent = last_event_id
    yield f"retry: {_RETRY_MS}\n\n"
    async with aclosing(watcher.watch(source.id, source.read, key=source.event_id, heartbeat_s=heartbeat_s)) as changes:
        try:
            async for now in changes:
                current = source.event_id(now)
                if current == sent:
                    yield ": heartbeat\n\n"
                    continue
                sent = current
                kind = "ended" if now.state.ended else "progress"
                data = await watcher.in_thread(lambda now=now: source.view(now).model_dump_json())  # type: ignore[misc]
                yield f"id: {current}\nevent: {kind}\ndata: {data}\n\n"
        except UnknownRun:
            return  # deleted meanwhile; a client that reconnects gets 404


def events_operation(what: str, view: str, path: str, example: str) -> dict[str, Any]:
    """The OpenAPI description of an operation with the events of ``what``, whose data has the schema ``view``."""
    event = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Send it as Last-Event-ID to get only new events."},
            "event": {"enum": ["progress", "ended"]},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": f"#/components/schemas/{view}"},
            },
        },
        "required": ["id", "event", "data"],
    }
    return {
        "response_class": StreamingResponse,
        "responses": {
            200: {
                "description": f"Events `progress`, at the end `ended`; the data is the {what} as in GET {path}.",
                # the schema of each event, as in OpenAPI 3.2 and in FastAPI's own event streams
                "content": {"text/event-stream": {"itemSchema": event, "example": example}},
            },
            204: {"description": f"The {what} has ended, and you have received its last event: do not reconnect."},
            **answers(404, 503),
        },
    }
