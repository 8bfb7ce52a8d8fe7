"""Conversion to httpx's requests and from its responses; the only place that puts the API key into a header."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx

from service.client.config import Config
from service.client.effects import Request, Response
from service.errors import InvalidRequest

MAX_ERROR_BYTES = 1 << 16
"""Largest error body that is read where a file was expected: it may come from another program."""


def arguments(config: Config, request: Request) -> dict[str, Any]:
    """Arguments for httpx's ``build_request``, except the body.

    The key is sent to paths on the server only: a signed link needs none and may lead to another host. Raises
    InvalidRequest for numbers that JSON cannot express.
    """
    headers = dict(request.headers)
    try:
        json.dumps(request.json, allow_nan=False)
    except ValueError:
        raise InvalidRequest(
            "a number in the request is not finite, and JSON cannot express it; give another, or leave it out"
        ) from None
    if not request.signed and config.api_key is not None:
        headers["Authorization"] = f"Bearer {config.api_key.get_secret_value()}"
    if request.content is not None and not isinstance(request.content, bytes):
        headers["Content-Length"] = str(request.content.size)
    return {
        "method": request.method,
        "url": request.url if request.signed else f"{config.url}{request.url}",
        "params": dict(request.params) or None,
        "json": request.json,
        "headers": headers,
        "timeout": config.timeout(request.timeout_s),
    }


def from_httpx(response: httpx.Response, content: bytes = b"") -> Response:
    """An httpx response as a :class:`Response` with ``content`` as its body."""
    return Response(response.status_code, response.headers, content)


def path(*parts: str | int) -> str:
    """``path("jobs", id, "samples")`` -> ``/jobs/{id}/samples``. Each part is quoted, so it stays one path segment."""
    for part in parts:
        if str(part) in ("", ".", ".."):
            raise ValueError(f"{part!r} cannot be a path segment")
    return "".join(f"/{quote(str(part), safe='@')}" for part in parts)
