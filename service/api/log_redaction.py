"""Secrets masked in logs: the access log has each request's query, and a link's signature gives access to an object.

Clients without a key write these lines too, so the work for one is proportional to its length, and that is limited.
"""

from __future__ import annotations

import logging
import re

from service.auth.api_key import without_secrets

_MASK = "********"
_MAX_CHARS = 2000
_KEY_CHARS = 100
"""More than an API key has."""
_PATH_AND_QUERY = re.compile(r"([^?\s\"]+\?)[^\s\"]*")
_OF_LINK = re.compile(r"/(?:objects|twins)/")


class RedactingFilter(logging.Filter):
    """A log filter that masks the queries of signed links, and API keys wherever they appear."""

    def filter(self, record: logging.LogRecord) -> bool:
        # The arguments are masked, not the finished text: uvicorn's formatter uses them one by one.
        if isinstance(record.args, tuple):
            record.args = tuple(masked(value) if isinstance(value, str) else value for value in record.args)
        if isinstance(record.msg, str):
            record.msg = masked(record.msg)
        return True


def masked(text: str) -> str:
    """``text`` with its secrets masked; its end is left out if it is long."""
    if len(text) > _MAX_CHARS:
        # masked before it is cut: half a key is no key to a pattern, and most of a secret
        text = f"{without_secrets(text[: _MAX_CHARS + _KEY_CHARS])[:_MAX_CHARS]}... ({len(text)} characters)"
    return without_secrets(_PATH_AND_QUERY.sub(_without_link_query, text) if "?" in text else text)


def _without_link_query(found: re.Match[str]) -> str:
    return found[1] + _MASK if _OF_LINK.search(found[1]) else found[0]


def install_log_redaction() -> None:
    """Adds the filter to the loggers of requests; calling it again changes nothing."""
    for name in ("uvicorn.access", "uvicorn.error", "twinset.api"):
        logger = logging.getLogger(name)
        if not any(isinstance(present, RedactingFilter) for present in logger.filters):
            logger.addFilter(RedactingFilter())
