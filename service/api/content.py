"""Routes that look at the content type before they read the body."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.api.problems import WrongContentType
from service.jobs.faults import shown


class _ContentRoute(APIRoute):
    """A route whose body must be of the type ``content``; ``remedy`` says what to send."""

    content: ClassVar[str]
    remedy: ClassVar[str]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, behind that look. It raises :class:`WrongContentType`."""
        handle = super().get_route_handler()

        async def handle_content(request: Request) -> Response:
            given = request.headers.get("content-type", "")
            if given.partition(";")[0].strip().lower() != self.content:
                raise WrongContentType(f"Content-Type is {shown(given) if given else 'missing'}; {self.remedy}")
            return await handle(request)

        return handle_content


class JsonRoute(_ContentRoute):
    """Takes ``application/json``."""

    content = "application/json"
    remedy = "send JSON, as application/json"


class PngRoute(_ContentRoute):
    """Takes ``image/png``."""

    content = "image/png"
    remedy = "send the PNG file itself as the body, as image/png"
