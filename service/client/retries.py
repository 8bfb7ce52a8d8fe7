"""Requests repeated while that may help, and answers taken apart: the same for both clients."""

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
from service.client.effects import Answer, BodySink, Fetch, Flow, Request, Send, Sleep
from service.client.errors import ApiProblem, ServerUnreachable, UnexpectedAnswer
from service.errors import TwinsetError

View = TypeVar("View", bound=BaseModel)
_MAY_PASS = frozenset({429, 502, 503, 504})
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 8.0
_WORTH_TELLING_S = 0.4
"""Whoever waits in front of a script wants to know why; of a moment's hitch nobody does."""
_SHOWN_CHARS = 500
_log = logging.getLogger("twinset.client")


def send(config: Config, request: Request) -> Flow[Answer]:
    """Sends a request, and again while that may help; the answer, a 2xx.

    Repeated are requests that may be, after a broken connection and 429, 502, 503, 504, and every request after a
    connection that never was and 429, for ``config.patience_s`` seconds in all. Raises ApiProblem, ServerUnreachable.
    """
    patience = _Patience(config)
    while True:
        try:
            answer: Answer = yield Send(request)
        except httpx.TransportError as error:
            yield from patience.after(request, unreachable(config, request, error), broken=error)
        else:
            if answer.is_success:
                return answer
            yield from patience.after(request, problem_of(config, answer), answer=answer)


def fetch(config: Config, request: Request, sink: BodySink) -> Flow[Answer]:
    """As :func:`send`, with the body to ``sink``. What broke off goes on where it did, and patience begins anew with
    all that came."""
    patience = _Patience(config)
    while True:
        so_far = sink.size
        try:
            answer: Answer = yield Fetch(_from(request, so_far), sink)
        except httpx.TransportError as error:
            if sink.size > so_far:
                patience = _Patience(config)
            yield from patience.after(request, unreachable(config, request, error), broken=error)
        else:
            if answer.is_success:
                return answer
            if answer.status == 416 and so_far:
                return answer  # it broke off behind the last byte: there is no more
            yield from patience.after(request, problem_of(config, answer), answer=answer)


def parse(model: type[View], answer: Answer) -> View:
    """The answer's JSON. Raises UnexpectedAnswer where it is not that of the API."""
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}"
        raise UnexpectedAnswer(
            f"the server answered {answer.status} with what is no {model.__name__} ({what}). Is the address that of Twinset's API, and "
            "the server about as new as this client?"
        ) from None


def link(config: Config, url: str) -> Request:
    """A GET of a signed link, which the answer of a server may give as a path on it. Raises UnexpectedAnswer for what
    is no link."""
    whole = urljoin(f"{config.url}/", url)
    if urlsplit(whole).scheme not in ("http", "https") or not urlsplit(whole).hostname:
        raise UnexpectedAnswer(f"the server gave {url[:100]!r} as a link; links begin with http:// or https://")
    return Request("GET", whole, signed=True)


def problem_of(config: Config, answer: Answer) -> ApiProblem:
    """The error that an answer tells of."""
    kind = answer.headers.get("content-type", "")
    try:
        document = json.loads(answer.content) if kind.startswith("application/problem+json") else None
    except ValueError:
        document = None
    if isinstance(document, dict):
        return ApiProblem(document, answer.status)
    title = f"The server answered {answer.status}"
    if 300 <= answer.status < 400:
        there = urlsplit(answer.headers.get("location", ""))
        elsewhere = f"{there.scheme}://{there.netloc}{there.path}"
        detail = f"{config.url} sends elsewhere ({elsewhere}); give the address at which the API itself answers"
    else:
        text = answer.content.decode("utf-8", "replace").strip()[:_SHOWN_CHARS]
        detail = f"the answer was {answer.status}, and no problem document: {text or 'it was empty'}"
    return ApiProblem({"title": title, "detail": detail}, answer.status)


def unreachable(config: Config, request: Request, error: httpx.TransportError) -> ServerUnreachable:
    """What a broken connection is called, with what may be done about it."""
    reason = str(error) or type(error).__name__
    asked = urlsplit(request.url)
    if asked.netloc and f"{asked.scheme}://{asked.netloc}" != config.url:
        return ServerUnreachable(
            f"the server at {config.url} gave a link to {asked.scheme}://{asked.netloc}, which does not answer ({reason}). "
            "Its TWINSET_PUBLIC_URL, or the endpoint of its store, must be an address that clients can reach."
        )
    if not request.repeatable and not isinstance(error, _NEVER_SENT):
        return ServerUnreachable(
            f"the connection to {config.url} broke during {request} ({reason}). Whether it was accepted is not known: look before you "
            "send it again."
        )
    return ServerUnreachable(
        f"{config.url} does not answer ({reason}). Start a server with 'twinset up' (everything on this machine) or 'twinset serve', "
        "or name another: url=..., or in the environment TWINSET_PUBLIC_URL."
    )


class _Patience:
    """How long to wait before a request is sent again, and when not to any more."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._deadline = config.clock() + config.patience_s
        self._pause_s = _FIRST_PAUSE_S
        self._told = False

    def after(
        self,
        request: Request,
        failure: TwinsetError,
        *,
        answer: Answer | None = None,
        broken: httpx.TransportError | None = None,
    ) -> Flow[None]:
        """Passes the time until the next attempt. Raises ``failure`` where there is none."""
        wait_s = self._next_pause_s()
        told_s = retry_after_s(answer.headers) if answer is not None else None
        if told_s is not None:
            wait_s = told_s + wait_s * 0.1
        may_pass = _may_be_sent_again(request, failure, answer, broken)
        left_s = self._deadline - self._config.clock()
        if not may_pass or wait_s > left_s:
            raise failure from broken
        if broken is not None and wait_s >= _WORTH_TELLING_S and not self._told:
            self._told = True
            _log.warning("%s; asking again for up to %.0f s", failure.detail.partition(". ")[0], left_s)
        yield Sleep(wait_s)

    def _next_pause_s(self) -> float:
        # Jittered, so that the many workers of one training do not all come back in the same moment.
        pause_s = self._pause_s * (0.5 + 0.5 * self._config.jitter())
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What ``Retry-After`` asks for, in seconds, given as such or as a date; None where it is not there, or
    unintelligible."""
    told = headers.get("retry-after", "").strip()
    if told.isdecimal() and len(told) <= 9:
        return float(told)
    try:
        until = parsedate_to_datetime(told)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _may_be_sent_again(
    request: Request, failure: TwinsetError, answer: Answer | None, broken: httpx.TransportError | None
) -> bool:
    if isinstance(broken, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return False
    if broken is not None:
        return request.repeatable or isinstance(broken, _NEVER_SENT)
    assert answer is not None
    if isinstance(failure, ApiProblem) and failure.is_kind("object-damaged"):
        return False  # the server has read it again and again already
    return answer.status == 429 or (request.repeatable and answer.status in _MAY_PASS)


def _from(request: Request, so_far: int) -> Request:
    # as stored: bytes that are compressed on their way cannot be asked for from the middle on
    headers = {**request.headers, "Accept-Encoding": "identity"}
    return replace(request, headers={**headers, "Range": f"bytes={so_far}-"} if so_far else headers)
