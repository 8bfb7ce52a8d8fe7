"""What needs no key and is computed costs the same however often it is asked, and stays true."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from contextlib import suppress

import httpx
import pytest
from fastapi import FastAPI

from service.api.routes import health
from service.api.shared_result import SharedResult
from service.errors import StoreUnavailable
from service.store import ObjectStore


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_a_thousand_requests_cost_one_computation(
    app: FastAPI, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    calls: Counter[str] = Counter()
    check, text = store.check, app.state.services.metrics.text

    def counted(name: str, compute):  # type: ignore[no-untyped-def]
        def run() -> object:
            calls[name] += 1
            time.sleep(0.05)
            return compute()

        return run

    store.check = counted("/readyz", check)  # type: ignore[method-assign]
    monkeypatch.setattr(app.state.services.metrics_text, "_compute", counted("/metrics", text))

    async def flood() -> list[int]:
        async with client_of(app) as client:
            answers = await asyncio.gather(*(client.get(path) for _ in range(1000)))
            return [answer.status_code for answer in answers]

    began = time.monotonic()
    statuses = asyncio.run(flood())
    assert set(statuses) <= {200, 503}
    assert len(set(statuses)) == 1
    assert 1 <= calls[path] <= 1 + (time.monotonic() - began) / 1.0


def test_a_store_that_hangs_keeps_nobody_else_waiting_and_is_told(
    app: FastAPI, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, released = Counter[str](), threading.Event()

    def hang() -> None:
        hangs["store"] += 1
        released.wait(30)

    store.check = hang  # type: ignore[method-assign]
    monkeypatch.setattr(health, "_MAX_CHECK_S", 0.5)

    async def ask() -> tuple[list[httpx.Response], httpx.Response, float]:
        async with client_of(app) as client:
            probes = [asyncio.create_task(client.get("/readyz")) for _ in range(100)]
            await asyncio.sleep(0.1)
            began = time.monotonic()
            other = await client.get("/models")
            took_s = time.monotonic() - began
            return await asyncio.gather(*probes), other, took_s

    probes, other, took_s = asyncio.run(ask())
    released.set()
    assert (other.status_code, hangs["store"]) == (200, 1)
    assert took_s < 0.4
    for answer in probes:
        assert answer.status_code == 503
        assert "has not answered for 0.5 s" in answer.json()["detail"]


def test_an_answer_is_a_second_old_at_most_and_a_failure_is_told_and_forgotten_as_soon() -> None:
    outcomes: list[object] = ["ready", StoreUnavailable("the disk is gone"), "ready again"]

    def compute() -> object:
        found = outcomes.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def ask() -> None:
        shared = SharedResult(compute, hold_s=0.1)
        assert await shared.get(1) == await shared.get(1) == "ready"
        await asyncio.sleep(0.15)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await shared.get(1)
        await asyncio.sleep(0.15)
        assert await shared.get(1) == "ready again"

    asyncio.run(ask())


def test_a_caller_that_goes_away_takes_nothing_from_the_others() -> None:
    go = threading.Event()

    async def ask() -> None:
        shared = SharedResult(lambda: go.wait(10))
        first, second = (asyncio.create_task(shared.get(5)) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.sleep(0.05)
        go.set()
        assert await second is True
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(ask())


def test_while_a_new_result_is_computed_all_are_given_the_last_one_that_is_not_too_old() -> None:
    go, calls = threading.Event(), Counter[str]()

    def compute() -> int:
        calls["all"] += 1
        assert calls["all"] == 1 or go.wait(10)
        return calls["all"]

    shared = SharedResult(compute, hold_s=0.05, stale_s=0.5)
    assert shared.wait(1) == 1
    time.sleep(0.1)
    began = time.monotonic()
    assert [shared.wait(5) for _ in range(100)] == [1] * 100
    assert time.monotonic() - began < 0.3
    assert calls["all"] == 2
    time.sleep(0.5)
    with pytest.raises(TimeoutError):
        shared.wait(0.1)
    go.set()
    assert shared.wait(5) == 2


def test_what_came_before_a_failure_is_not_given_again() -> None:
    outcomes: list[object] = [1, StoreUnavailable("the disk is gone"), 3]

    def compute() -> object:
        if isinstance(found := outcomes.pop(0), Exception):
            raise found
        time.sleep(0.1)
        return found

    shared = SharedResult(compute, hold_s=0.0, stale_s=60)
    assert shared.wait(1) == 1
    with suppress(StoreUnavailable):
        shared.wait(1)
    time.sleep(0.05)
    assert shared.wait(1) == 3
