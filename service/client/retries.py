"""Retries of requests with growing pauses, and parsing of responses, for both clients."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from service.client.config import Config
from service.client.effects import BodySink, Fetch, Flow, Request, Response, Send, Sleep
from service.client.errors import ApiProblem, ServerUnreachable, UnexpectedAnswer
from service.errors import TwinsetError

View = TypeVar("View", bound=BaseModel)
_TEMPORARY_STATUSES = frozenset({429, 502, 503, 504})
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.2, 8.0
_WARN_FROM_PAUSE_S = 0.4
"""Shorter pauses are not worth a warning; from this one on, the user should know why the script waits."""
_SHOWN_CHARS = 500
_log = logging.getLogger("twinset.client")


def send(config: Config, request: Request) -> Flow[Response]:
    """Sends a request, with retries, and returns its 2xx response.

    Repeatable requests are retried after a broken connection and after 429, 502, 503 and 504; all others only if no
    connection was made, and after 429. Retries end after ``config.retry_timeout_s`` seconds in all. Raises ApiProblem
    or ServerUnreachable.
    """
    backoff = _Backoff(config)
    while True:
        try:
            response: Response = yield Send(request)
        except httpx.TransportError as error:
            yield from backoff.pause_or_raise(request, unreachable(config, request, error), transport_error=error)
        else:
            if response.is_success:
                return response
            yield from backoff.pause_or_raise(request, problem_from(config, response), response=response)


def fetch(config: Config, request: Request, sink: BodySink) -> Flow[Response]:
    """As :func:`send`, with the body streamed to ``sink``.

    A broken transfer continues where it broke off, and every transfer that brought data resets the retry timeout.
    """
    backoff = _Backoff(config)
    while True:
        so_far = sink.size
        try:
            response: Response = yield Fetch(_range_request(request, so_far), sink)
        except httpx.TransportError as error:
            if sink.size > so_far:
                backoff = _Backoff(config)
            yield from backoff.pause_or_raise(request, unreachable(config, request, error), transport_error=error)
        else:
            if response.is_success:
                return response
            if response.status == 416 and so_far:
                return response  # it broke off after the last byte: the body is complete
            yield from backoff.pause_or_raise(request, problem_from(config, response), response=response)


def parse(model: type[View], response: Response) -> View:
    """The response's JSON as a ``model``. Raises UnexpectedAnswer if it does not match."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}"
        raise UnexpectedAnswer(
            f"the server answered {response.status} with a body that is not a {model.__name__} ({what}). Is the "
            "address that of Twinset's API, and does the server's version fit this client's?"
        ) from None


def link_request(config: Config, url: str) -> Request:
    """A GET of a signed link, which may be a path on the server. Raises UnexpectedAnswer if it is not an HTTP link."""
    whole = urljoin(f"{config.url}/", url)
    if urlsplit(whole).scheme not in ("http", "https") or not urlsplit(whole).hostname:
        raise UnexpectedAnswer(f"the server gave {url[:100]!r} as a link; links begin with http:// or https://")
    return Request("GET", whole, signed=True)


def problem_from(config: Config, response: Response) -> ApiProblem:
    """The error that a response describes."""
    kind = response.headers.get("content-type", "")
    try:
        document = json.loads(response.content) if kind.startswith("application/problem+json") else None
    except ValueError:
        document = None
    if isinstance(document, dict):
        return ApiProblem(document, response.status)
    title = f"The server answered {response.status}"
    if 300 <= response.status < 400:
        there = urlsplit(response.headers.get("location", ""))
        elsewhere = f"{there.scheme}://{there.netloc}{there.path}"
        detail = f"{config.url} redirects to {elsewhere}; give the address at which the API itself answers"
    else:
        text = response.content.decode("utf-8", "replace").strip()[:_SHOWN_CHARS]
        detail = f"the response had status {response.status} and no problem document: {text or 'it was empty'}"
    return ApiProblem({"title": title, "detail": detail}, response.status)


def unreachable(config: Config, request: Request, error: httpx.TransportError) -> ServerUnreachable:
    """The error for a broken connection, with its remedy."""
    reason = str(error) or type(error).__name__
    target = urlsplit(request.url)
    if target.netloc and f"{target.scheme}://{target.netloc}" != config.url:
        return ServerUnreachable(
            f"the server at {config.url} gave a link to {target.scheme}://{target.netloc}, which does not answer "
            f"({reason}). Its TWINSET_PUBLIC_URL, or the endpoint of its store, must be reachable by clients."
        )
    if not request.repeatable and not isinstance(error, _NEVER_SENT):
        return ServerUnreachable(
            f"the connection to {config.url} broke during {request} ({reason}). It may have been accepted: check "
            "before you send it again."
        )
    return ServerUnreachable(
        f"{config.url} does not answer ({reason}). Start a server with 'twinset up' (everything on this machine) or "
        "'twinset serve', or name another: url=..., or in the environment TWINSET_PUBLIC_URL."
    )


class _Backoff:
    """Growing pauses between the attempts of one request, until the retry timeout."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._deadline = config.clock() + config.retry_timeout_s
        self._pause_s = _FIRST_PAUSE_S
        self._warned = False

    def pause_or_raise(
        self,
        request: Request,
        failure: TwinsetError,
        *,
        response: Response | None = None,
        transport_error: httpx.TransportError | None = None,
    ) -> Flow[None]:
        """Sleeps until the next attempt. Raises ``failure`` if there is none."""
        wait_s = self._next_pause_s()
        requested_s = retry_after_s(response.headers) if response is not None else None
        if requested_s is not None:
            wait_s = requested_s + wait_s * 0.1
        may_retry = _may_retry(request, failure, response, transport_error)
        left_s = self._deadline - self._config.clock()
        if not may_retry or wait_s > left_s:
            raise failure from transport_error
        if transport_error is not None and wait_s >= _WARN_FROM_PAUSE_S and not self._warned:
            self._warned = True
            _log.warning("%s; retrying for up to %.0f s", failure.detail.partition(". ")[0], left_s)
        yield Sleep(wait_s)

    def _next_pause_s(self) -> float:
        # jittered, so that the many processes of one training do not all retry at the same moment
        pause_s = self._pause_s * (0.5 + 0.5 * self._config.jitter())
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
        return pause_s


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The ``Retry-After`` header in seconds, from a number or a date; None if it is missing or malformed."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal() and len(value) <= 9:
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _may_retry(
    request: Request, failure: TwinsetError, response: Response | None, transport_error: httpx.TransportError | None
) -> bool:
    if isinstance(transport_error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return False
    if transport_error is not None:
        return request.repeatable or isinstance(transport_error, _NEVER_SENT)
    assert response is not None
    if isinstance(failure, ApiProblem) and failure.is_kind("object-damaged"):
        return False  # the server has already re-read it several times
    return response.status == 429 or (request.repeatable and response.status in _TEMPORARY_STATUSES)


def _range_request(request: Request, so_far: int) -> Request:
    # identity: a range of a compressed transfer would not be a range of the stored bytes
    headers = {**request.headers, "Accept-Encoding": "identity"}
    return replace(request, headers={**headers, "Range": f"bytes={so_far}-"} if so_far else headers)
