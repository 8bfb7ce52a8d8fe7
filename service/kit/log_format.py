"""Log lines as text for people, or as JSON objects for programs, by ``TWINSET_LOG_FORMAT``."""

from __future__ import annotations

import json
import logging
import re
import sys
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Literal

from service.kit.log_context import current_context

LogFormat = Literal["text", "json"]
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_IDS = re.compile(r"\b(job|chunk|run)=([a-z0-9]+)")


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, and what it belongs to.

    Ids that only the message names, as ``job=... chunk=...``, become members too.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        named = {
            name: int(value) if name == "chunk" and value.isdecimal() else value
            for name, value in _IDS.findall(message)
        }
        line |= named | {name: value for name, value in current_context().items() if name != "traceparent"}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(level: str, log_format: LogFormat) -> None:
    """Sets up the log of a worker, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def uvicorn_log_config(level: str, log_format: LogFormat) -> dict[str, Any]:
    """uvicorn's configuration of logging; as JSON, everything that the API logs is."""
    from uvicorn.config import LOGGING_CONFIG

    config = deepcopy(LOGGING_CONFIG)
    if log_format == "json":
        config["formatters"] = {name: {"()": JsonFormatter} for name in config["formatters"]}
        config["root"] = {"handlers": ["default"], "level": level.upper()}
    return config
