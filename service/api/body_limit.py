"""The limit of request bodies, whether their length is announced or not."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import problem_response
from service.errors import BodyTooLarge

_MAX_DIGITS = 19


class _Exceeded(Exception):
    """The body is over the limit."""


class BodyLimitMiddleware:
    """Answers 413 as soon as a body is over ``max_bytes``: by its announced length, or while it is read.

    ``others`` are the limits of paths whose bodies are streamed to disk; for JSON ``max_bytes`` applies there too.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, others: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._others = dict(others or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        limit = self._max_bytes
        if b"json" not in headers.get(b"content-type", b""):
            limit = self._others.get(scope["path"], limit)
        announced = headers.get(b"content-length", b"").lstrip(b"0")
        # Its number of digits is checked first: Python converts no number of more than some thousand digits.
        if announced.isdigit() and (len(announced) > _MAX_DIGITS or int(announced) > limit):
            size = (
                f"{int(announced)} bytes"
                if len(announced) <= _MAX_DIGITS
                else f"bytes in a number of {len(announced)} digits"
            )
            await self._refuse(f"the body has {size}", limit, scope, receive, send)
            return

        read = 0
        exceeded = False

        async def counted() -> Message:
            nonlocal read, exceeded
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > limit:
                    exceeded = True
                    raise _Exceeded
            return message

        async def unless_exceeded(message: Message) -> None:
            # The app's own answer to the incomplete body must not reach the client.
            if not exceeded:
                await send(message)

        with contextlib.suppress(_Exceeded):
            await self._app(scope, counted, unless_exceeded)
        if exceeded:
            await self._refuse(f"the body has more than {limit} bytes", limit, scope, receive, send)

    async def _refuse(self, what: str, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        error = BodyTooLarge(f"{what}; at most {limit} are allowed, send less", limit=limit)
        # The rest of the body stays unread, so the connection cannot be used again.
        response = problem_response(error, instance=scope["path"], headers={"Connection": "close"})
        await response(scope, receive, send)
