"""The member ``callback_url`` of requests; :mod:`service.webhooks.validate` checks its value."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.webhooks.urls import MAX_URL_CHARS


def callback_member(what: str) -> Any:
    """The field ``callback_url`` of a request for ``what``, a noun with its article."""
    return Field(
        None,
        json_schema_extra={"maxLength": MAX_URL_CHARS},
        description=f"An https:// address that gets a POST when {what} has ended: signed as Standard Webhooks specify, "
        "and repeated for about a day until the answer is 2xx. Up to 2048 characters, without user, password or "
        "fragment. Private and loopback addresses are refused unless the service allows them.",
    )
