"""Requests that several kinds of run have in common."""

from __future__ import annotations

import uuid
from typing import Any

from service.client.effects import Request
from service.errors import InvalidRequest


def posted(url: str, body: dict[str, Any], idempotency_key: str | None) -> Request:
    """A POST that makes something, once however often it is sent. Raises as :func:`key_header`."""
    return Request("POST", url, json=body, headers=key_header(idempotency_key))


def key_header(idempotency_key: str | None) -> dict[str, str]:
    """What makes a request once however often it is sent: the key given, or one that no other call has.

    Raises InvalidRequest for a key that no header can carry.
    """
    if idempotency_key is not None and not (
        idempotency_key and all("!" <= character <= "~" for character in idempotency_key)
    ):
        raise InvalidRequest(
            f"idempotency_key is {idempotency_key[:100]!r}; give 1 to 255 visible ASCII characters without spaces"
        )
    return {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}


def page_of(url: str, cursor: str | None, limit: int, **params: str | None) -> Request:
    """A GET of the page behind ``cursor``; of the first, if that is None."""
    given = {"cursor": cursor, **params}
    return Request("GET", url, {"limit": limit, **{name: value for name, value in given.items() if value is not None}})
