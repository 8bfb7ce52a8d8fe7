"""Progress as server-sent events, of whatever has a state and ends.

Every event is a whole snapshot, so a client that missed some has missed nothing once it has the next. An event's id
names its snapshot: one who comes back with ``Last-Event-ID``, to whichever process, hears only of what has changed
since.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Generic

from fastapi import Header
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from service.api.openapi import answers
from service.api.watcher import Seen, Watcher
from service.errors import UnknownRun

HEARTBEAT_S = 15.0
_RETRY_MS = 2000
LastEventId = Annotated[str | None, Header(description="Id of the last event heard.")]


@dataclass(frozen=True)
class Followed(Generic[Seen]):
    """What is followed: its id, how it stands, the name of such a snapshot, and what is told of it.

    ``read`` and ``view`` may wait for store and Redis. What ``read`` finds to be no more is told of no longer.
    """

    id: str
    read: Callable[[], Seen]
    name: Callable[[Seen], str]
    view: Callable[[Seen], BaseModel]


async def answer_events(watcher: Watcher, followed: Followed[Any], last_event_id: str | None) -> Response:
    """The answer with the events; 204 for one who has heard the end."""
    if last_event_id is not None:
        now = await run_in_threadpool(followed.read)
        if now.state.ended and followed.name(now) == last_event_id:
            return Response(status_code=204)
    return StreamingResponse(
        event_stream(watcher, followed, last_event_id=last_event_id),
        media_type="text/event-stream",
        # A proxy that buffers or transforms would hold the events back.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def event_stream(
    watcher: Watcher, followed: Followed[Any], *, last_event_id: str | None = None, heartbeat_s: float = HEARTBEAT_S
) -> AsyncGenerator[str, None]:
    """The events, as text, until the end."""
    heard = last_event_id
    yield f"retry: {_RETRY_MS}\n\n"
    async with aclosing(watcher.watch(followed.id, followed.read, news=followed.name, beat_s=heartbeat_s)) as changes:
        try:
            async for now in changes:
                here = followed.name(now)
                if here == heard:
                    yield ": still here\n\n"
                    continue
                heard = here
                kind = "ended" if now.state.ended else "progress"
                data = (await run_in_threadpool(followed.view, now)).model_dump_json()
                yield f"id: {here}\nevent: {kind}\ndata: {data}\n\n"
        except UnknownRun:
            return  # deleted on the way; who comes back is told so


def described_events(what: str, view: str, path: str, example: str) -> dict[str, Any]:
    """What an operation says of itself that answers with the events of ``what``, whose data is of the schema
    ``view``."""
    event = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Send it as Last-Event-ID to hear only of what is new."},
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
                "description": f"Events `progress`, and at last `ended`; the data is the {what}, as GET {path} answers it.",
                # of each event, as OpenAPI 3.2 has it, and FastAPI for its own events already
                "content": {"text/event-stream": {"itemSchema": event, "example": example}},
            },
            204: {"description": f"The {what} has ended and you have heard so: do not come back."},
            **answers(404, 503),
        },
    }
