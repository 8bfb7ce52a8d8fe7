"""No request body over the limit, whether its length is announced or not."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import problem_response
from service.errors import BodyTooLarge

_MAX_DIGITS = 19


class _Exceeded(Exception):
    """The body has passed the limit."""


class BodyLimitMiddleware:
    """Answers 413 as soon as a body passes ``max_bytes``: at its announced length, or while it is being read.

    ``others`` are the limits of paths whose bodies are written to disk as they come, unless it is JSON that comes.
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
        most = self._max_bytes
        if b"json" not in headers.get(b"content-type", b""):
            most = self._others.get(scope["path"], most)
        announced = headers.get(b"content-length", b"").lstrip(b"0")
        # Compared by its length first: Python makes no number of more than some thousand digits.
        if announced.isdigit() and (len(announced) > _MAX_DIGITS or int(announced) > most):
            size = (
                f"{int(announced)} bytes"
                if len(announced) <= _MAX_DIGITS
                else f"bytes in a number of {len(announced)} digits"
            )
            await self._refuse(f"the body has {size}", most, scope, receive, send)
            return

        read = 0
        exceeded = False

        async def counted() -> Message:
            nonlocal read, exceeded
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > most:
                    exceeded = True
                    raise _Exceeded
            return message

        async def unless_exceeded(message: Message) -> None:
            # What the app makes of the broken-off body is not what the client should hear.
            if not exceeded:
                await send(message)

        with contextlib.suppress(_Exceeded):
            await self._app(scope, counted, unless_exceeded)
        if exceeded:
            await self._refuse(f"the body has more than {most} bytes", most, scope, receive, send)

    async def _refuse(self, what: str, most: int, scope: Scope, receive: Receive, send: Send) -> None:
        error = BodyTooLarge(f"{what}; at most {most} are read, send less", limit=most)
        # The rest of the body stays unread, so the connection cannot be used again.
        response = problem_response(error, instance=scope["path"], headers={"Connection": "close"})
        await response(scope, receive, send)
