"""Flows run in an event loop: what :class:`~service.client.AsyncTwinset` is made of. Whatever waits for a disk is done
in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import httpx

from service.client.config import Config
from service.client.effects import Answer, Body, Effect, Fetch, Flow, Request, Send, Sleep, Together, Work
from service.client.paging import Page, as_paged
from service.client.wire import MAX_ERROR_BYTES, answer_of, arguments

Result = TypeVar("Result")
Made = TypeVar("Made")
Owner = TypeVar("Owner")
P = ParamSpec("P")


class CooperativeRunner:
    """Runs flows in the event loop of asyncio that it is called from."""

    def __init__(self, config: Config, http: httpx.AsyncClient) -> None:
        self._config = config
        self._http = http

    async def run(self, flow: Flow[Result]) -> Result:
        """The flow's result, or what it raises. Where the task is cancelled so is the flow, with its ``finally`` blocks
        run."""
        try:
            effect = next(flow)
            while True:
                try:
                    outcome = await self._do(effect)
                except BaseException as error:  # CancelledError too: the flow cleans up behind itself
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
                return answer_of(response, response.content)
            case Fetch():
                return await self._fetch(effect)
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Work(call):
                return await _in_thread(call)
            case Together(flows, at_once):
                return await self._together(flows, at_once)

    def _request(self, request: Request) -> httpx.Request:
        body = request.content
        content = body if body is None or isinstance(body, bytes) else _pieces(body)
        return self._http.build_request(content=content, **arguments(self._config, request))

    async def _fetch(self, effect: Fetch) -> Answer:
        response = await self._http.send(self._request(effect.request), stream=True)
        try:
            if response.status_code in (200, 206):
                effect.sink.begin(response.status_code, response.headers)
                async for (
                    piece
                ) in response.aiter_bytes():  # of no size of ours: httpx would hold back, and lose, what is less
                    await _in_thread(partial(effect.sink.write, piece))
                return answer_of(response)
            content = b""
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > MAX_ERROR_BYTES:
                    break
            return answer_of(response, content)
        finally:
            await response.aclose()

    async def _together(self, flows: Iterable[Flow[Any]], at_once: int) -> list[Any]:
        waiting = enumerate(flows)
        results: dict[int, Any] = {}

        async def work() -> None:
            for number, flow in waiting:
                results[number] = await self.run(flow)

        tasks = [asyncio.create_task(work()) for _ in range(at_once)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return [results[number] for number in sorted(results)]


async def _in_thread(call: Callable[[], Any]) -> Any:
    """What ``call`` returns. Where the task is cancelled meanwhile, it first ends: nothing goes on behind the flow's
    back."""
    done = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        if not done.cancelled():
            done.exception()  # looked at, so that nobody complains of it
        raise


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    pieces = body.pieces()
    while piece := await _in_thread(partial(next, pieces, b"")):
        yield piece


@overload
def cooperative(
    flow: Callable[Concatenate[Owner, P], Flow[Result]],
) -> Callable[Concatenate[Owner, P], Awaitable[Result]]: ...
@overload
def cooperative(
    flow: Callable[Concatenate[Any, P], Flow[Result]], made: Callable[[Any, Result], Made]
) -> Callable[Concatenate[Any, P], Awaitable[Made]]: ...
def cooperative(flow: Callable[..., Flow[Any]], made: Callable[[Any, Any], Any] | None = None) -> Callable[..., Any]:
    """As :func:`~service.client.blocking.blocking`, to be awaited."""

    @wraps(flow)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = await self._client.runner.run(flow(self, *args, **kwargs))
        return result if made is None else made(self._client, result)

    return method


@overload
def cooperative_pages(
    page: Callable[Concatenate[Any, str | None, P], Flow[Page[Result]]],
) -> Callable[Concatenate[Any, P], AsyncIterator[Result]]: ...
@overload
def cooperative_pages(
    page: Callable[Concatenate[Any, str | None, P], Flow[Page[Result]]], made: Callable[[Any, Result], Made]
) -> Callable[Concatenate[Any, P], AsyncIterator[Made]]: ...
def cooperative_pages(
    page: Callable[..., Flow[Page[Any]]], made: Callable[[Any, Any], Any] | None = None
) -> Callable[..., Any]:
    """As :func:`~service.client.blocking.blocking_pages`, for ``async for``."""

    async def method(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        cursor: str | None = None
        while True:
            found = await self._client.runner.run(page(self, cursor, *args, **kwargs))
            for entry in found.entries:
                yield entry if made is None else made(self._client, entry)
            cursor = found.next_cursor
            if cursor is None:
                return

    return as_paged(method, page)
