"""The content type of a request, and routes that check it before the body is read."""

from __future__ import annotations

from typing import ClassVar

from fastapi import Request
from starlette.types import Scope

from service.api.auth import KeyedRoute
from service.api.errors import WrongContentType
from service.kit.validation import truncated_repr

JSON = "application/json"


def media_type(scope: Scope) -> str:
    """The type of the request's body in lower case, without parameters; "" if the request names none.

    All that depends on the type asks here, so that no two parts take the same body for different things. There is one
    such header at most: :mod:`service.api.request_headers` refuses others.
    """
    given = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return given.decode("latin-1").partition(";")[0].strip().lower()


class _ContentRoute(KeyedRoute):
    """A route whose body must be of the type ``content``; ``remedy`` says what to send."""

    content: ClassVar[str]
    remedy: ClassVar[str]

    def check(self, request: Request) -> None:
        """Raises :class:`WrongContentType` unless the body has this type."""
        if media_type(request.scope) != self.content:
            given = request.headers.get("content-type", "")
            raise WrongContentType(f"Content-Type is {truncated_repr(given) if given else 'missing'}; {self.remedy}")

    def body_type(self, request: Request) -> str | None:
        """The type of body that is held in memory."""
        return self.content


class JsonRoute(_ContentRoute):
    """A route for ``application/json``."""

    content = JSON
    remedy = "send JSON, as application/json"


class PngRoute(_ContentRoute):
    """A route for ``image/png``."""

    content = "image/png"
    remedy = "send the PNG file itself as the body, as image/png"
