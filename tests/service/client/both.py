"""One interface to both clients, so that a test is written once and runs for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

from service.client import AsyncTwinset, Twinset
from service.client.runs import Run


class Awaited:
    """Wraps an object of :class:`AsyncTwinset` and awaits its calls: coroutines give results, async iterators lists."""

    def __init__(self, runner: asyncio.Runner, inner: Any) -> None:
        self.runner = runner
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return self._awaiting(found) if callable(found) else found

    def __repr__(self) -> str:
        return repr(self.inner)

    def _awaiting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            kwargs = {name: _unwrapped(value) for name, value in kwargs.items()}
            result = method(*map(_unwrapped, args), **kwargs)
            if hasattr(result, "__aiter__"):
                return iter([self._wrapped(entry) for entry in self.runner.run(_listed(result))])
            return self._wrapped(self.runner.run(result)) if asyncio.iscoroutine(result) else result

        return call

    def _wrapped(self, value: Any) -> Any:
        return Awaited(self.runner, value) if isinstance(value, Run) else value


class BothClients:
    """Makes clients of one kind, "sync" or "async", and closes them at the end."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._runner = asyncio.Runner()
        self._made: list[Any] = []

    def __call__(self, url: str | None = None, api_key: str | None = None, **options: Any) -> Any:
        client: Any = (
            Twinset(url, api_key, **options)
            if self.kind == "sync"
            else Awaited(self._runner, AsyncTwinset(url, api_key, **options))
        )
        self._made.append(client)
        return client

    def __enter__(self) -> BothClients:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._made:
            client.close() if self.kind == "sync" else client.aclose()
        self._runner.close()


async def _listed(entries: Any) -> list[Any]:
    return [entry async for entry in entries]


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unwrapped(entry) for entry in value]
    return value.inner if isinstance(value, Awaited) else value
