"""The member ``callback_url`` of requests. What it may be is looked at in :mod:`service.webhooks.validate`, in our own
words."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.webhooks.urls import MAX_URL_CHARS


def callback_member(what: str) -> Any:
    """The field of a request for ``what``, a noun with its article."""
    return Field(
        None,
        json_schema_extra={"maxLength": MAX_URL_CHARS},
        description=f"An https:// address, to which a POST says how {what} has ended: signed as Standard Webhooks has it, "
        "and repeated for about a day until it is answered with 2xx. Up to 2048 characters, without user, password or "
        "fragment. Private and loopback addresses are refused unless the service allows them.",
    )
