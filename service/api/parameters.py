"""Headers and query parameters that several endpoints share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query

from service.errors import InvalidRequest
from service.jobs.idempotency import MAX_KEY_CHARS
from service.kit.validation import truncated_repr

Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]

IdempotencyKey = Annotated[
    str | None,
    Header(
        json_schema_extra={"minLength": 1, "maxLength": MAX_KEY_CHARS, "pattern": "^[!-~]+$"},
        description="1 to 255 visible ASCII characters, for example a UUID. The same key with the same body always "
        "gives the same answer; with another body it is refused. A key is free again once what it made is deleted.",
    ),
]


def numeric_cursor(cursor: str | None) -> int | None:
    """The number that a cursor stands for. Raises :class:`InvalidRequest` for a cursor that no page has given."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 9):
        raise bad_cursor(cursor)
    return int(cursor)


def bad_cursor(cursor: str) -> InvalidRequest:
    """The error for a cursor that no page has given."""
    return InvalidRequest(
        f"cursor is {truncated_repr(cursor)}; take it from next_cursor of the page before, or leave it out",
        errors=[{"parameter": "cursor", "in": "query", "detail": "not a cursor"}],
    )
