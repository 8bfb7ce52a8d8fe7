"""Request ids: each request has one, of its client's or made here; it is in the answer, the log, and jobs and runs."""

from __future__ import annotations

import re
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.kit.log_context import log_context
from service.kit.tracing import span

_VALID_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_VALID_PARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class RequestIdMiddleware:
    """Gives each request its ``X-Request-ID``, and a span if traces are on. An id of another form is replaced."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _given(headers, b"x-request-id", _VALID_ID) or uuid.uuid4().hex
        parent = _given(headers, b"traceparent", _VALID_PARENT)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        with (
            span(f"{scope['method']} request", traceparent=parent, path=scope["path"], request_id=request_id) as own,
            log_context(request_id=request_id, traceparent=own),
        ):
            await self._app(scope, receive, send_with_id)


def _given(headers: dict[bytes, bytes], name: bytes, form: re.Pattern[str]) -> str | None:
    text = headers.get(name, b"").decode("latin-1")
    return text if form.fullmatch(text) else None
