"""Flows run by threads: what :class:`~service.client.Twinset` is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import httpx

from service.client.config import Config
from service.client.effects import Answer, Effect, Fetch, Flow, Request, Send, Sleep, Together, Work
from service.client.paging import Page, as_paged
from service.client.wire import MAX_ERROR_BYTES, answer_of, arguments

Result = TypeVar("Result")
Made = TypeVar("Made")
Owner = TypeVar("Owner")
P = ParamSpec("P")


class Stopped(Exception):
    """Raised in a flow that runs beside others, when one of them has failed or the user wants no more."""


class BlockingRunner:
    """Runs flows in the caller's thread. May be used from many threads."""

    def __init__(self, config: Config, http: httpx.Client) -> None:
        self._config = config
        self._http = http

    def run(self, flow: Flow[Result], stop: threading.Event | None = None) -> Result:
        """The flow's result, or what it raises. Once ``stop`` is set, the flow is, with its ``finally`` blocks run."""
        stop = stop or threading.Event()
        try:
            effect = next(flow)
            while True:
                try:
                    outcome = self._do(effect, stop)
                except BaseException as error:  # KeyboardInterrupt too: the flow cleans up behind itself
                    effect = flow.throw(error)
                else:
                    effect = flow.send(outcome)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _do(self, effect: Effect, stop: threading.Event) -> Any:
        _check(stop)
        match effect:
            case Send(request):
                response = self._http.send(self._request(request))
                return answer_of(response, response.content)
            case Fetch():
                return self._fetch(effect, stop)
            case Sleep(seconds):
                stop.wait(seconds)
                return _check(stop)
            case Work(call):
                return call()
            case Together(flows, at_once):
                return self._together(flows, at_once)

    def _request(self, request: Request) -> httpx.Request:
        body = request.content
        content = body if body is None or isinstance(body, bytes) else body.pieces()
        return self._http.build_request(content=content, **arguments(self._config, request))

    def _fetch(self, effect: Fetch, stop: threading.Event) -> Answer:
        response = self._http.send(self._request(effect.request), stream=True)
        try:
            if response.status_code in (200, 206):
                effect.sink.begin(response.status_code, response.headers)
                for piece in response.iter_bytes():  # of no size of ours: httpx would hold back, and lose, what is less
                    _check(stop)
                    effect.sink.write(piece)
                return answer_of(response)
            content = b""
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MAX_ERROR_BYTES:
                    break
            return answer_of(response, content)
        finally:
            response.close()

    def _together(self, flows: Iterable[Flow[Any]], at_once: int) -> list[Any]:
        beside = _Beside()
        futures: list[Future[Any]] = []
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="twinset")
        try:
            for flow in flows:
                futures.append(pool.submit(beside.run, self.run, flow))
            wait(futures, return_when=FIRST_EXCEPTION)
            failures = [failure for future in futures if future.done() and (failure := future.exception())]
            if failures:
                raise failures[0]
            return [future.result() for future in futures]
        except BaseException:  # Ctrl-C too
            beside.stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            beside.until_all_ended()


class _Beside:
    """Counts the flows that run side by side: after a Ctrl-C in the midst of starting one, the pool does not know of
    it."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._running = 0
        self._changed = threading.Condition()

    def run(self, run: Callable[[Flow[Any], threading.Event], Any], flow: Flow[Any]) -> Any:
        with self._changed:
            _check(self.stop)
            self._running += 1
        try:
            return run(flow, self.stop)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def until_all_ended(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._running)


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


@overload
def blocking(flow: Callable[Concatenate[Owner, P], Flow[Result]]) -> Callable[Concatenate[Owner, P], Result]: ...
@overload
def blocking(
    flow: Callable[Concatenate[Any, P], Flow[Result]], made: Callable[[Any, Result], Made]
) -> Callable[Concatenate[Any, P], Made]: ...
def blocking(flow: Callable[..., Flow[Any]], made: Callable[[Any, Any], Any] | None = None) -> Callable[..., Any]:
    """The flow as a method, of anything with a ``_client``; it returns the flow's result, or what ``made(client,
    result)`` makes of it."""

    @wraps(flow)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = self._client.runner.run(flow(self, *args, **kwargs))
        return result if made is None else made(self._client, result)

    return method


@overload
def blocking_pages(
    page: Callable[Concatenate[Any, str | None, P], Flow[Page[Result]]],
) -> Callable[Concatenate[Any, P], Iterator[Result]]: ...
@overload
def blocking_pages(
    page: Callable[Concatenate[Any, str | None, P], Flow[Page[Result]]], made: Callable[[Any, Result], Made]
) -> Callable[Concatenate[Any, P], Iterator[Made]]: ...
def blocking_pages(
    page: Callable[..., Flow[Page[Any]]], made: Callable[[Any, Any], Any] | None = None
) -> Callable[..., Any]:
    """The flow of a page, by the cursor it is given, as a method that iterates over all pages."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        cursor: str | None = None
        while True:
            found = self._client.runner.run(page(self, cursor, *args, **kwargs))
            for entry in found.entries:
                yield entry if made is None else made(self._client, entry)
            cursor = found.next_cursor
            if cursor is None:
                return

    return as_paged(method, page)
