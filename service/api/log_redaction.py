"""No secret in a log: the server's access log has each request's query, and there the signature of a link opens an
object."""

from __future__ import annotations

import logging
import re

from service.auth.api_key import without_secrets

_MASK = "********"
_LINK_QUERY = re.compile(r"(/(?:objects|twins)/[^?\s\"]*\?)[^\s\"]*")


class SecretsOut(logging.Filter):
    """Masks the queries of signed links, and API keys that somebody put where they do not belong, in every record's
    text."""

    def filter(self, record: logging.LogRecord) -> bool:
        # The values are masked, not the finished text: uvicorn's formatter takes them apart again.
        if isinstance(record.args, tuple):
            record.args = tuple(masked(value) if isinstance(value, str) else value for value in record.args)
        if isinstance(record.msg, str):
            record.msg = masked(record.msg)
        return True


def masked(text: str) -> str:
    """``text`` without what opens anything."""
    return without_secrets(_LINK_QUERY.sub(rf"\1{_MASK}", text))


def keep_secrets_out_of_logs() -> None:
    """Sets the filter on the loggers that see requests; a second time changes nothing."""
    for name in ("uvicorn.access", "uvicorn.error", "twinset.api"):
        logger = logging.getLogger(name)
        if not any(isinstance(present, SecretsOut) for present in logger.filters):
            logger.addFilter(SecretsOut())
