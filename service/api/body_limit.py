"""No request body over the limit, whether its length is announced or not."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response
from service.errors import BodyTooLarge

_MOST_DIGITS = 19


class _Exceeded(Exception):
    """The body has passed the limit."""


class BodyLimitMiddleware:
    """Answers 413 as soon as a body passes ``max_bytes``: at its announced length, or while it is being read."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"").lstrip(b"0")
        # Compared by its length first: Python makes no number of more than some thousand digits.
        if announced.isdigit() and (len(announced) > _MOST_DIGITS or int(announced) > self._max_bytes):
            size = f"{int(announced)} bytes" if len(announced) <= _MOST_DIGITS else f"bytes in a number of {len(announced)} digits"
            await self._refuse(f"the body has {size}", scope, receive, send)
            return

        read = 0
        exceeded = False

        async def counted() -> Message:
            nonlocal read, exceeded
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self._max_bytes:
                    exceeded = True
                    raise _Exceeded
            return message

        async def unless_exceeded(message: Message) -> None:
            # What the app makes of the broken-off body is not what the client should hear.
            if not exceeded:
                await send(message)

        try:
            await self._app(scope, counted, unless_exceeded)
        except _Exceeded:
            pass
        if exceeded:
            await self._refuse(f"the body has more than {self._max_bytes} bytes", scope, receive, send)

    async def _refuse(self, what: str, scope: Scope, receive: Receive, send: Send) -> None:
        error = BodyTooLarge(f"{what}; at most {self._max_bytes} are read, send less", limit=self._max_bytes)
        # The rest of the body stays unread, so the connection cannot be used again.
        response = problem_response(error, instance=scope["path"], headers={"Connection": "close"})
        await response(scope, receive, send)
