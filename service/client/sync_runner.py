"""Runner of flows in threads, and the decorators that make blocking methods for :class:`~service.client.Twinset`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import httpx

from service.client.config import Config
from service.client.effects import Call, Effect, Fetch, Flow, Gather, Request, Response, Send, Sleep
from service.client.paging import Page, as_paged
from service.client.wire import MAX_ERROR_BYTES, arguments, from_httpx

Result = TypeVar("Result")
Wrapped = TypeVar("Wrapped")
Owner = TypeVar("Owner")
P = ParamSpec("P")


class FlowStopped(Exception):
    """Raised in a concurrent flow when another one has failed or the user has interrupted them."""


class SyncRunner:
    """Runs flows in the caller's thread. May be used from many threads."""

    def __init__(self, config: Config, http: httpx.Client) -> None:
        self._config = config
        self._http = http

    def run(self, flow: Flow[Result], stop: threading.Event | None = None) -> Result:
        """The flow's result. Once ``stop`` is set, FlowStopped is raised in the flow, so its ``finally`` blocks run."""
        stop = stop or threading.Event()
        try:
            effect = next(flow)
            while True:
                try:
                    outcome = self._do(effect, stop)
                except BaseException as error:  # KeyboardInterrupt too: the flow cleans up after itself
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
                return from_httpx(response, response.content)
            case Fetch():
                return self._fetch(effect, stop)
            case Sleep(seconds):
                stop.wait(seconds)
                return _check(stop)
            case Call(call):
                return call()
            case Gather(flows, max_concurrency):
                return self._together(flows, max_concurrency)

    def _request(self, request: Request) -> httpx.Request:
        body = request.content
        content = body if body is None or isinstance(body, bytes) else body.chunks()
        return self._http.build_request(content=content, **arguments(self._config, request))

    def _fetch(self, effect: Fetch, stop: threading.Event) -> Response:
        response = self._http.send(self._request(effect.request), stream=True)
        try:
            if response.status_code in (200, 206):
                effect.sink.begin(response.status_code, response.headers)
                for chunk in response.iter_bytes():  # no chunk size: httpx would hold back, and lose, a shorter rest
                    _check(stop)
                    effect.sink.write(chunk)
                return from_httpx(response)
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_ERROR_BYTES:
                    break
            return from_httpx(response, content)
        finally:
            response.close()

    def _together(self, flows: Iterable[Flow[Any]], max_concurrency: int) -> list[Any]:
        concurrent = _ConcurrentFlows()
        futures: list[Future[Any]] = []
        pool = ThreadPoolExecutor(max_concurrency, thread_name_prefix="twinset")
        try:
            for flow in flows:
                futures.append(pool.submit(concurrent.run, self.run, flow))
            wait(futures, return_when=FIRST_EXCEPTION)
            failures = [failure for future in futures if future.done() and (failure := future.exception())]
            if failures:
                raise failures[0]
            return [future.result() for future in futures]
        except BaseException:  # Ctrl-C too
            concurrent.stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            concurrent.wait_until_done()


class _ConcurrentFlows:
    """Counts the flows that are running: the pool loses track of one whose start is interrupted by Ctrl-C."""

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

    def wait_until_done(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._running)


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise FlowStopped


@overload
def sync_method(flow: Callable[Concatenate[Owner, P], Flow[Result]]) -> Callable[Concatenate[Owner, P], Result]: ...
@overload
def sync_method(
    flow: Callable[Concatenate[Any, P], Flow[Result]], wrap: Callable[[Any, Result], Wrapped]
) -> Callable[Concatenate[Any, P], Wrapped]: ...
def sync_method(flow: Callable[..., Flow[Any]], wrap: Callable[[Any, Any], Any] | None = None) -> Callable[..., Any]:
    """Makes a blocking method of a flow, for a class with a ``_client``.

    The method returns the flow's result, or ``wrap(client, result)`` if ``wrap`` is given.
    """

    @wraps(flow)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = self._client.runner.run(flow(self, *args, **kwargs))
        return result if wrap is None else wrap(self._client, result)

    return method


@overload
def sync_iterator(
    page: Callable[Concatenate[Any, str | None, P], Flow[Page[Result]]],
) -> Callable[Concatenate[Any, P], Iterator[Result]]: ...
@overload
def sync_iterator(
    page: Callable[Concatenate[Any, str | None, P], Flow[Page[Result]]], wrap: Callable[[Any, Result], Wrapped]
) -> Callable[Concatenate[Any, P], Iterator[Wrapped]]: ...
def sync_iterator(
    page: Callable[..., Flow[Page[Any]]], wrap: Callable[[Any, Any], Any] | None = None
) -> Callable[..., Any]:
    """Makes an iterator over all pages of a flow that fetches the page at a cursor."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        cursor: str | None = None
        while True:
            found = self._client.runner.run(page(self, cursor, *args, **kwargs))
            for entry in found.entries:
                yield entry if wrap is None else wrap(self._client, entry)
            cursor = found.next_cursor
            if cursor is None:
                return

    return as_paged(method, page)
