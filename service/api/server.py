"""The HTTP server of the API: uvicorn, with limits of connections and timeouts."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from service.api.connections import BACKLOG, MAX_HEADER_BYTES, limited_protocol
from service.kit.log_format import uvicorn_log_config
from service.settings import Settings


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """uvicorn's configuration for ``app``."""
    return uvicorn.Config(
        app,
        log_level=settings.log_level,
        log_config=uvicorn_log_config(settings.log_level, settings.log_format),
        http=limited_protocol(settings),
        # the API has no WebSockets, so nothing else needs limits
        ws="none",
        backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=settings.idle_timeout_s,  # type: ignore[arg-type]  # it is only passed to call_later
        # event streams never end by themselves, so a stop does not wait for their readers
        timeout_graceful_shutdown=3,
    )
