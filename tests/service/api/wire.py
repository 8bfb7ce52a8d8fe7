"""Calls an app as its server does, byte by byte: client libraries tidy a request up before they send it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

PROBLEM = "application/problem+json"
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back; ``headers`` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A line to ``app``, with an event loop of its own, while the ``with`` block lasts. What the app raises is
    raised."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._runner = asyncio.Runner()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def ask(
        self, method: str, target: str, *, headers: Mapping[str, str | bytes] | None = None, body: bytes = b""
    ) -> Answer:
        """The answer to a request for ``target``, path and query as they stand in the request's first line."""
        return self._runner.run(self._ask(method, target, headers or {}, body))

    async def _ask(self, method: str, target: str, headers: Mapping[str, str | bytes], body: bytes) -> Answer:
        raw_path, _, query = target.partition("?")
        sent = {
            "host": "127.0.0.1:8000",
            "content-length": str(len(body)),
            **{name.lower(): headers[name] for name in headers},
        }
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path),
            "raw_path": raw_path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "root_path": "",
            "headers": [
                (name.encode(), value.encode("latin-1") if isinstance(value, str) else value)
                for name, value in sent.items()
            ],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        ended = asyncio.Event()
        incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        start: Message = {}
        pieces = []

        async def receive() -> Message:
            if incoming:
                return incoming.pop()
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                ended.set()

        async with asyncio.timeout(_TIMEOUT_S):
            await self._app(scope, receive, send)
        named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], named, b"".join(pieces))
