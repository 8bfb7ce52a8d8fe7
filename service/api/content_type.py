"""Routes that check the content type before the body is read."""

from __future__ import annotations

from typing import ClassVar

from fastapi import Request

from service.api.auth import KeyedRoute
from service.api.errors import WrongContentType
from service.kit.validation import truncated_repr


class _ContentRoute(KeyedRoute):
    """A route whose body must be of the type ``content``; ``remedy`` says what to send."""

    content: ClassVar[str]
    remedy: ClassVar[str]

    def check(self, request: Request) -> None:
        """Raises :class:`WrongContentType` unless the body has this type."""
        given = request.headers.get("content-type", "")
        if given.partition(";")[0].strip().lower() != self.content:
            raise WrongContentType(f"Content-Type is {truncated_repr(given) if given else 'missing'}; {self.remedy}")


class JsonRoute(_ContentRoute):
    """A route for ``application/json``."""

    content = "application/json"
    remedy = "send JSON, as application/json"


class PngRoute(_ContentRoute):
    """A route for ``image/png``."""

    content = "image/png"
    remedy = "send the PNG file itself as the body, as image/png"
