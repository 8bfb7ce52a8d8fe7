"""Runner of flows in an event loop, and the decorators that make the methods of :class:`~service.client.AsyncTwinset`.

Calls that wait for a disk run in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import httpx

from service.client.config import Config
from service.client.effects import Call, Effect, Fetch, Flow, Gather, Request, RequestBody, Response, Send, Sleep
from service.client.paging import Page, as_paged
from service.client.wire import MAX_ERROR_BYTES, arguments, from_httpx

Result = TypeVar("Result")
Wrapped = TypeVar("Wrapped")
Owner = TypeVar("Owner")
P = ParamSpec("P")


class AsyncRunner:
    """Runs flows in the running asyncio event loop."""

    def __init__(self, config: Config, http: httpx.AsyncClient) -> None:
        self._config = config
        self._http = http

    async def run(self, flow: Flow[Result]) -> Result:
        """The flow's result. If the task is cancelled, so is the flow, and its ``finally`` blocks run."""
        try:
            effect = next(flow)
            while True:
                try:
                    outcome = await self._do(effect)
                except BaseException as error:  # CancelledError too: the flow cleans up after itself
                    effect = flow.throw(error)
                else:
                    effect = flow.send(outcome)
        except StopIteration as end:
            result: Result = end.value
            return result

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Send(request):
                response = await self._http.send(self._request(request))
                return from_httpx(response, response.content)
            case Fetch():
                return await self._fetch(effect)
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Call(call):
                return await _in_thread(call)
            case Gather(flows, max_concurrency):
                return await self._together(flows, max_concurrency)

    def _request(self, request: Request) -> httpx.Request:
        body = request.content
        content = body if body is None or isinstance(body, bytes) else _pieces(body)
        return self._http.build_request(content=content, **arguments(self._config, request))

    async def _fetch(self, effect: Fetch) -> Response:
        response = await self._http.send(self._request(effect.request), stream=True)
        try:
            if response.status_code in (200, 206):
                effect.sink.begin(response.status_code, response.headers)
                # no chunk size: httpx would hold back, and lose, a shorter rest
                async for chunk in response.aiter_bytes():
                    await _in_thread(partial(effect.sink.write, chunk))
                return from_httpx(response)
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_ERROR_BYTES:
                    break
            return from_httpx(response, content)
        finally:
            await response.aclose()

    async def _together(self, flows: Iterable[Flow[Any]], max_concurrency: int) -> list[Any]:
        waiting = enumerate(flows)
        results: dict[int, Any] = {}

        async def work() -> None:
            for number, flow in waiting:
                results[number] = await self.run(flow)

        tasks = [asyncio.create_task(work()) for _ in range(max_concurrency)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return [results[number] for number in sorted(results)]


async def _in_thread(call: Callable[[], Any]) -> Any:
    """The result of ``call``, run in a thread. A cancelled task first waits for it, so that nothing runs on unseen."""
    done = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        if not done.cancelled():
            done.exception()  # retrieved, so that asyncio does not warn about it
        raise


async def _pieces(body: RequestBody) -> AsyncIterator[bytes]:
    chunks = body.chunks()
    while chunk := await _in_thread(partial(next, chunks, b"")):
        yield chunk


@overload
def async_method(
    flow: Callable[Concatenate[Owner, P], Flow[Result]],
) -> Callable[Concatenate[Owner, P], Awaitable[Result]]: ...
@overload
def async_method(
    flow: Callable[Concatenate[Any, P], Flow[Result]], wrap: Callable[[Any, Result], Wrapped]
) -> Callable[Concatenate[Any, P], Awaitable[Wrapped]]: ...
def async_method(flow: Callable[..., Flow[Any]], wrap: Callable[[Any, Any], Any] | None = None) -> Callable[..., Any]:
    """Makes an awaitable method of a flow; see :func:`~service.client.sync_runner.sync_method`."""

    @wraps(flow)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = await self._client.runner.run(flow(self, *args, **kwargs))
        return result if wrap is None else wrap(self._client, result)

    return method


@overload
def async_iterator(
    page: Callable[Concatenate[Any, str | None, P], Flow[Page[Result]]],
) -> Callable[Concatenate[Any, P], AsyncIterator[Result]]: ...
@overload
def async_iterator(
    page: Callable[Concatenate[Any, str | None, P], Flow[Page[Result]]], wrap: Callable[[Any, Result], Wrapped]
) -> Callable[Concatenate[Any, P], AsyncIterator[Wrapped]]: ...
def async_iterator(
    page: Callable[..., Flow[Page[Any]]], wrap: Callable[[Any, Any], Any] | None = None
) -> Callable[..., Any]:
    """Makes an async iterator over pages; see :func:`~service.client.sync_runner.sync_iterator`."""

    async def method(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        cursor: str | None = None
        while True:
            found = await self._client.runner.run(page(self, cursor, *args, **kwargs))
            for entry in found.entries:
                yield entry if wrap is None else wrap(self._client, entry)
            cursor = found.next_cursor
            if cursor is None:
                return

    return as_paged(method, page)
