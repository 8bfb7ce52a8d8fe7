"""/jobs/{id}/events: server-sent events, without Redis and with it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import aclosing

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.routes.job_events import job_events_source
from service.api.sse import event_stream
from service.jobs.progress import Progress
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from tests.service.api.support import events_in, finish, make_chunk


@pytest.fixture
def spec(client: TestClient, repository: JobRepository) -> JobSpec:
    body = {"model": "aerial", "classes": ["water"], "count": 6}
    return repository.read_spec(client.post("/generate", json=body).json()["id"])


def test_each_change_is_told_and_the_end_is_the_end(app: FastAPI, repository: JobRepository, spec: JobSpec) -> None:
    async def follow() -> list[str]:
        watcher = app.state.services.watcher
        pieces = []
        async with aclosing(event_stream(watcher, job_events_source(app.state.services, spec))) as stream:
            pieces += [await anext(stream), await anext(stream)]
            for chunk in range(3):
                make_chunk(repository, spec, chunk)
                pieces.append(await anext(stream))
            repository.conclude(spec)
            pieces += [piece async for piece in stream]
        await watcher.close()
        return pieces

    events = events_in("".join(asyncio.run(follow())))
    assert [event["id"] for event in events] == [
        "0.0.0.queued",
        "2.2.0.running",
        "3.4.0.running",
        "4.6.0.running",
        "6.6.0.succeeded",
    ]
    assert [event["event"] for event in events] == ["progress"] * 4 + ["ended"]
    assert [json.loads(event["data"])["done"] for event in events] == [0, 2, 4, 6, 6]


def test_an_open_stream_ends_when_the_job_does(client: TestClient, repository: JobRepository, spec: JobSpec) -> None:
    make_chunk(repository, spec, 0)
    ending = threading.Timer(0.3, finish, (repository, spec))
    ending.start()
    answer = client.get(f"/jobs/{spec.job}/events")
    ending.join()
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = events_in(answer.text)
    assert events[0]["id"] == "2.2.0.running"
    assert events[-1]["event"] == "ended"
    assert json.loads(events[-1]["data"]) == client.get(f"/jobs/{spec.job}").json()


def test_who_comes_back_hears_only_of_what_is_new(client: TestClient, repository: JobRepository, spec: JobSpec) -> None:
    make_chunk(repository, spec, 0)
    finish(repository, spec)
    answer = client.get(f"/jobs/{spec.job}/events", headers={"Last-Event-ID": "2.2.0.running"})
    assert [event["id"] for event in events_in(answer.text)] == ["6.6.0.succeeded"]


def test_who_has_heard_the_end_is_told_not_to_come_back(
    client: TestClient, repository: JobRepository, spec: JobSpec
) -> None:
    finish(repository, spec)
    answer = client.get(f"/jobs/{spec.job}/events", headers={"Last-Event-ID": "6.6.0.succeeded"})
    assert (answer.status_code, answer.text) == (204, "")


def test_a_quiet_job_is_still_heard_of(app: FastAPI, repository: JobRepository, spec: JobSpec) -> None:
    async def first_four() -> list[str]:
        watcher = app.state.services.watcher
        stream = event_stream(
            watcher, job_events_source(app.state.services, spec), last_event_id="0.0.0.queued", heartbeat_s=0.05
        )
        try:
            async with aclosing(stream):
                return [await anext(stream) for _ in range(4)]
        finally:
            await watcher.close()

    pieces = asyncio.run(first_four())
    assert pieces == ["retry: 2000\n\n"] + [": heartbeat\n\n"] * 3


def test_a_watcher_that_leaves_leaves_nothing_behind(app: FastAPI, spec: JobSpec) -> None:
    async def look_and_leave() -> None:
        watcher = app.state.services.watcher
        stream = event_stream(watcher, job_events_source(app.state.services, spec))
        async with aclosing(stream):
            await anext(stream)
            await anext(stream)
            assert watcher._waiting
        assert not watcher._waiting
        await watcher.close()

    asyncio.run(look_and_leave())


def test_many_streams_of_one_job_share_its_reads(app: FastAPI, repository: JobRepository, spec: JobSpec) -> None:
    reads = []

    async def run() -> None:
        watcher = app.state.services.watcher
        source = job_events_source(app.state.services, spec)

        def read() -> Progress:
            reads.append(time.monotonic())
            return source.read()

        async def follow() -> list[int]:
            return [seen.done async for seen in watcher.watch(spec.job, read, key=source.event_id)]

        streams = [asyncio.create_task(follow()) for _ in range(50)]
        await asyncio.sleep(0.05)
        streams.pop().cancel()  # a client that leaves takes no other's snapshot away
        await asyncio.to_thread(finish, repository, spec)
        ends = await asyncio.gather(*streams)
        assert {seen[-1] for seen in ends} == {spec.count}
        await watcher.close()

    asyncio.run(run())
    assert len(reads) < 25
