"""Settings of a client: server address, API key, timeouts; and the filter that keeps signatures out of logs."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from service import __version__
from service.errors import SettingsError

DEFAULT_URL = "http://127.0.0.1:8000"
MAX_WORKERS = 64
"""Largest number of files that one download fetches at once."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_CONNECT_S = 5.0
_SIGNATURES = frozenset({"signature", "x-amz-signature", "x-amz-security-token"})
"""Query parameters that make a link a signed one, in lower case; anyone who has them can open the link."""


@dataclass(frozen=True)
class Config:
    """A client's settings.

    ``retry_timeout_s``: for how long a repeatable request is retried while the server cannot be reached or asks to
    wait. ``timeout_s``: how long one response may take to begin, or to continue. ``clock`` counts seconds; ``jitter``
    draws from 0..1.
    """

    url: str
    api_key: SecretStr | None = None
    retry_timeout_s: float = 30.0
    timeout_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    @classmethod
    def read(
        cls,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry_timeout_s: float = 30.0,
        timeout_s: float = 60.0,
        environ: Mapping[str, str] = os.environ,
    ) -> Config:
        """The arguments, else ``TWINSET_PUBLIC_URL`` and ``TWINSET_API_KEY``, else this machine without a key.

        Raises SettingsError naming the invalid value; the message never holds the key.
        """
        place = (url or environ.get("TWINSET_PUBLIC_URL") or DEFAULT_URL).strip().rstrip("/")
        parts = urlsplit(place)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                f"the server's address is {place!r}; give one that begins with http:// or https://, like {DEFAULT_URL}"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise SettingsError(
                "the server's address has a user, password, query or fragment; leave it out. A key goes into api_key"
            )
        key = (environ.get("TWINSET_API_KEY", "") if api_key is None else api_key).strip()
        if not all("!" <= character <= "~" for character in key):
            raise SettingsError("the API key has a space, or a character that is not ASCII; copy it again")
        for name, value in (("retry_timeout_s", retry_timeout_s), ("timeout_s", timeout_s)):
            if not value >= 0 or (name == "timeout_s" and value == 0):
                raise SettingsError(f"{name} is {value}; give a number of seconds")
        return cls(place, SecretStr(key) if key else None, retry_timeout_s=retry_timeout_s, timeout_s=timeout_s)

    def http_options(self) -> dict[str, Any]:
        """Arguments for httpx's clients. The key is not among them: a client's header would go to every host."""
        return {
            "timeout": self.timeout(None),
            "headers": {"User-Agent": f"twinset-python/{__version__}"},
            "follow_redirects": False,
            "limits": httpx.Limits(max_connections=2 * MAX_WORKERS, max_keepalive_connections=MAX_WORKERS),
            # requests to this machine must not go through the environment's proxy
            "mounts": {f"all://{host}": None for host in _LOOPBACK},
        }

    def timeout(self, timeout_s: float | None) -> httpx.Timeout:
        """The timeouts of one request; ``timeout_s`` overrides the configured one."""
        return httpx.Timeout(timeout_s or self.timeout_s, connect=min(_CONNECT_S, self.timeout_s))


class SignatureFilter(logging.Filter):
    """Logging filter that masks the query of signed links: httpx logs each URL, and a signed link opens its object."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_masked(value) if isinstance(value, httpx.URL) else value for value in record.args)
        return True


def _masked(url: httpx.URL) -> httpx.URL | str:
    if any(name.lower() in _SIGNATURES for name in url.params):
        return f"{url.copy_with(query=None)}?********"
    return url


def install_signature_filter() -> None:
    """Adds the filter to httpx's logger, once."""
    logger = logging.getLogger("httpx")
    if not any(isinstance(present, SignatureFilter) for present in logger.filters):
        logger.addFilter(SignatureFilter())
