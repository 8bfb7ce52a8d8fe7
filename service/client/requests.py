"""Requests that jobs, datasets, exports and augmentations share: idempotent POSTs and pages of lists."""

from __future__ import annotations

import uuid
from typing import Any

from service.client.effects import Request
from service.errors import InvalidRequest


def post_request(url: str, body: dict[str, Any], idempotency_key: str | None) -> Request:
    """A POST that creates something once, however often it is sent. Raises as :func:`idempotency_header`."""
    return Request("POST", url, json=body, headers=idempotency_header(idempotency_key))


def idempotency_header(idempotency_key: str | None) -> dict[str, str]:
    """The ``Idempotency-Key`` header: the given key, or a new random one.

    Raises InvalidRequest for a key that is not 1 or more visible ASCII characters.
    """
    if idempotency_key is not None and not (
        idempotency_key and all("!" <= character <= "~" for character in idempotency_key)
    ):
        raise InvalidRequest(
            f"idempotency_key is {idempotency_key[:100]!r}; give 1 to 255 visible ASCII characters without spaces"
        )
    return {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}


def page_request(url: str, cursor: str | None, limit: int, **params: str | None) -> Request:
    """A GET of the page after ``cursor``; of the first page if it is None."""
    given = {"cursor": cursor, **params}
    return Request("GET", url, {"limit": limit, **{name: value for name, value in given.items() if value is not None}})
