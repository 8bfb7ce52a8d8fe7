"""From our requests to httpx's, and from its answers to ours; the one place where the API key is written down."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx

from service.client.config import Config
from service.client.effects import Answer, Request
from service.errors import InvalidRequest

MAX_ERROR_BYTES = 1 << 16
"""Of an error's body in place of a file no more is read: it may be another's."""


def arguments(config: Config, request: Request) -> dict[str, Any]:
    """Arguments for httpx's ``build_request``, but for the body.

    The key goes to paths on the server alone. A signed link opens by its signature, is perhaps to another host, and the
    key is none of its business. Raises InvalidRequest for numbers that JSON has no word for.
    """
    headers = dict(request.headers)
    try:
        json.dumps(request.json, allow_nan=False)
    except ValueError:
        raise InvalidRequest(
            "a number of the request is not finite, and JSON has no word for it; give another, or leave it out"
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


def answer_of(response: httpx.Response, content: bytes = b"") -> Answer:
    """The answer, with ``content`` as its body."""
    return Answer(response.status_code, response.headers, content)


def path(*parts: str | int) -> str:
    """``path("jobs", id, "samples")`` -> ``/jobs/{id}/samples``; what a part holds is never more than one part."""
    for part in parts:
        if str(part) in ("", ".", ".."):
            raise ValueError(f"{part!r} is no part of a path")
    return "".join(f"/{quote(str(part), safe='@')}" for part in parts)
