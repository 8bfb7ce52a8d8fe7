"""Secrets masked in logs: the access log has each request's query, and a link's signature gives access to an object."""

from __future__ import annotations

import logging
import re

from service.auth.api_key import without_secrets

_MASK = "********"
_LINK_QUERY = re.compile(r"(/(?:objects|twins)/[^?\s\"]*\?)[^\s\"]*")


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
    """``text`` with its secrets masked."""
    return without_secrets(_LINK_QUERY.sub(rf"\1{_MASK}", text))


def install_log_redaction() -> None:
    """Adds the filter to the loggers of requests; calling it again changes nothing."""
    for name in ("uvicorn.access", "uvicorn.error", "twinset.api"):
        logger = logging.getLogger(name)
        if not any(isinstance(present, RedactingFilter) for present in logger.filters):
            logger.addFilter(RedactingFilter())
