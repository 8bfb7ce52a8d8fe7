"""The limits of request bodies: their size, whether it is announced or not, and the time they may take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.content_type import media_type
from service.api.errors import BodyTimeout, refuse
from service.errors import BodyTooLarge, TwinsetError

_MAX_DIGITS = 19
_MIN_BYTES_PER_S = 1024
"""A body that comes more slowly, on average, is not waited for."""


class _Refused(Exception):
    """The body is too large or too slow."""


class BodyLimitMiddleware:
    """Answers 413 as soon as a body is over ``max_bytes``, by its announced length or while it is read; 408 if no more
    of it comes for ``timeout_s`` seconds, or less than a KiB a second.

    ``others`` are the limits of paths whose bodies are streamed to disk; for JSON ``max_bytes`` applies there too.
    """

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, timeout_s: float, others: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._others = dict(others or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        announced = dict(scope["headers"]).get(b"content-length", b"").lstrip(b"0")
        # Its number of digits is checked first: Python converts no number of more than some thousand digits.
        if announced.isdigit() and (len(announced) > _MAX_DIGITS or int(announced) > limit):
            size = (
                f"{int(announced)} bytes"
                if len(announced) <= _MAX_DIGITS
                else f"bytes in a number of {len(announced)} digits"
            )
            await refuse(_too_large(f"the body has {size}", limit), scope, receive, send, hang_up=True)
            return
        body = _Body(receive, send, limit=limit, timeout_s=self._timeout_s)
        with contextlib.suppress(_Refused):
            await self._app(scope, body.receive, body.send)
        if body.error is not None:
            await refuse(body.error, scope, receive, send, hang_up=True)

    def _limit(self, scope: Scope) -> int:
        other = self._others.get(scope["path"])
        if other is None or media_type(scope) == "application/json":
            return self._max_bytes
        return other


class _Body:
    """One request's body as the app receives it, within limits. ``error`` is what is wrong with it."""

    def __init__(self, receive: Receive, send: Send, *, limit: int, timeout_s: float) -> None:
        self.error: TwinsetError | None = None
        self._receive, self._send = receive, send
        self._limit, self._timeout_s = limit, timeout_s
        self._read = 0
        self._waited_s = 0.0
        self._complete = self._answered = False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        time_left = self._timeout_s + self._read / _MIN_BYTES_PER_S - self._waited_s
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(min(self._timeout_s, max(0.0, time_left))):
                message = await self._receive()
        except TimeoutError:
            if self._answered:  # with a stream: its client is as good as gone
                return {"type": "http.disconnect"}
            self.error = BodyTimeout(
                f"{self._read} bytes of the body came, and no more for {self._timeout_s:g} s, or less than "
                f"{_MIN_BYTES_PER_S} bytes a second; send it again, without pauses"
            )
            raise _Refused from None
        self._waited_s += clock() - began
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._read > self._limit:
                self.error = _too_large(f"the body has more than {self._limit} bytes", self._limit)
                raise _Refused
        return message

    async def send(self, message: Message) -> None:
        # The app's own answer to an incomplete body must not reach the client.
        if self.error is None:
            self._answered = True
            await self._send(message)


def _too_large(what: str, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"{what}; at most {limit} are allowed, send less", limit=limit)
