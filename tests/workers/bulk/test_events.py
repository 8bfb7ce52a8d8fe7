"""Tests of the server-sent events of exports, augmentation sets and datasets, with and without Redis."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from redis import Redis
from starlette.testclient import TestClient

from service.api import watcher
from service.api.app import create_app
from service.api.routes.run_events import run_events_source
from service.api.schemas.runs import RunView, run_fields
from service.api.services import Services
from service.api.sse import event_stream
from service.broker import redis_keys
from service.kit.run_kinds import RunKind, new_run_id
from service.runs.progress import RunProgress, publish_progress
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec
from service.settings import Settings
from service.store import ObjectStore
from tests.service.api.support import CLOSED_PORT, events_in
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from tests.workers.bulk.test_execute import DONE, accepted, kinds
from workers.bulk import context as work_module
from workers.bulk.context import Finished, RunContext
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.worker import BulkWorker

Execute = Callable[[str], RunOutcome]
SLOW_S = 120.0
"""A heartbeat interval longer than any test."""


def shown(services: Services, spec: RunSpec, stands: RunProgress) -> RunView:
    """The view of a run of any kind."""
    return RunView(**run_fields(spec, stands))


@asynccontextmanager
async def following(app: FastAPI, spec: RunSpec, **options: Any) -> AsyncGenerator[AsyncGenerator[str, None], None]:
    """The stream of a run's events, after its first line."""
    services = app.state.services
    async with aclosing(event_stream(services.watcher, run_events_source(services, spec, shown), **options)) as stream:
        assert await anext(stream) == "retry: 2000\n\n"
        yield stream
    await services.watcher.close()


async def following_event(stream: AsyncGenerator[str, None]) -> dict[str, Any]:
    """The next event of the stream, with its data."""
    (event,) = events_in(await asyncio.wait_for(anext(stream), 30))
    return {**event, "data": json.loads(event["data"])}


def test_progress_is_streamed_and_the_end_closes_the_stream(
    app: FastAPI, worker: BulkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a clock this slow, only Redis can have woken the watcher in time.
    monkeypatch.setattr(watcher, "_POLL_LISTENING_S", SLOW_S)
    spec = accepted(worker)

    async def follow() -> list[dict[str, Any]]:
        async with following(app, spec, heartbeat_s=SLOW_S) as stream:
            events = [await following_event(stream)]
            while not app.state.services.watcher._listening:
                await asyncio.sleep(0.01)

            def handle(context: RunContext) -> Finished:
                for done, note in ((1, "reading"), (2, "reading"), (2, "writing")):
                    publish_progress(worker.live_state, spec.run, done, 3, note=note)
                    heard.acquire()
                return DONE

            heard = threading.Semaphore(0)
            carried = asyncio.get_running_loop().run_in_executor(None, execute_run, worker, spec.run, kinds(handle))
            # executed only now, before the slow clock
            for _ in range(3):
                events.append(await following_event(stream))
                heard.release()
            events.append(await following_event(stream))
            assert [piece async for piece in stream] == []
            await carried
            return events

    events = asyncio.run(follow())
    assert [event["event"] for event in events] == ["progress"] * 4 + ["ended"]
    assert [(event["data"]["state"], event["data"]["done"], event["data"]["doing"]) for event in events] == [
        ("queued", 0, None),
        ("running", 1, "reading"),
        ("running", 2, "reading"),
        ("running", 2, "writing"),
        ("succeeded", 3, None),
    ]
    assert len({event["id"] for event in events}) == 5
    assert (events[0]["id"], events[-1]["id"]) == ("0.-.queued", "3.3.succeeded")


def test_a_redis_that_loses_progress_sends_no_event(app: FastAPI, worker: BulkWorker, settings: Settings) -> None:
    spec = accepted(worker)
    worker.runs.mark_started(spec.run)
    publish_progress(worker.live_state, spec.run, 40, 100)

    async def follow() -> list[Any]:
        async with following(app, spec, heartbeat_s=0.05) as stream:
            found: list[Any] = [(await following_event(stream))["data"]["done"]]
            Redis.from_url(settings.broker_url).flushall()
            found += [await anext(stream) for _ in range(3)]
            publish_progress(worker.live_state, spec.run, 41, 100)
            while (piece := await anext(stream)).startswith(":"):
                continue
            return [*found, json.loads(events_in(piece)[0]["data"])["done"]]

    still = ": heartbeat\n\n"
    assert asyncio.run(follow()) == [40, still, still, still, 41]


def test_without_redis_states_are_read_from_the_store(
    settings: Settings, store: ObjectStore, worker: BulkWorker
) -> None:
    app = create_app(
        settings.model_copy(update={"broker_url": CLOSED_PORT}), store=store, run_queue=RecordingRunQueue()
    )
    spec = accepted(worker)

    async def follow() -> list[str]:
        async with following(app, spec) as stream:
            ids = [(await following_event(stream))["id"]]
            worker.runs.mark_started(spec.run)
            ids.append((await following_event(stream))["id"])
            execute_run(worker, spec.run, kinds(lambda context: DONE))
            return [*ids, *(event["id"] for event in events_in("".join([piece async for piece in stream])))]

    assert asyncio.run(follow()) == ["0.-.queued", "0.-.running", "3.3.succeeded"]


def test_a_deletion_ends_the_stream_and_a_new_one_gets_404(
    app: FastAPI, worker: BulkWorker, client: TestClient
) -> None:
    spec = accepted(worker)

    async def follow() -> list[str]:
        async with following(app, spec) as stream:
            await following_event(stream)
            worker.runs.delete(spec)
            return [piece async for piece in stream]

    assert events_in("".join(asyncio.run(follow()))) == []
    assert client.get(f"/exports/{spec.run}/events").status_code == 404


def test_an_export_is_followed_over_http(client: TestClient, execute: Execute, run_queue: RecordingRunQueue) -> None:
    send(client, dataset_tar(3))
    dataset = run_queue.sent[-1]
    taking_in = threading.Timer(0.2, execute, (dataset,))
    taking_in.start()
    answer = client.get("/datasets/scenes/1/events")
    taking_in.join()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_in(answer.text)
    assert (events[0]["event"], json.loads(events[0]["data"])["state"]) == ("progress", "queued")
    assert (events[-1]["event"], json.loads(events[-1]["data"])["items"]) == ("ended", 3)

    export = client.post("/exports", json={"sources": [{"dataset": "scenes"}], "format": "coco"}).json()
    assert export["links"]["events"] == f"/exports/{export['id']}/events"
    execute(export["id"])
    (only,) = events_in(client.get(export["links"]["events"]).text)
    told, looked_at = json.loads(only["data"]), client.get(f"/exports/{export['id']}").json()
    assert only["event"] == "ended"
    assert told == looked_at


def test_an_ended_set_sends_one_event(client: TestClient, execute: Execute, run_queue: RecordingRunQueue) -> None:
    send(client, dataset_tar(3, names=("building", "water", "vegetation")))
    execute(run_queue.sent[-1])
    made = client.post("/augmentations", json={"dataset": "scenes", "model": "aerial", "count": 2, "seed": 1}).json()
    events = made["links"]["events"]
    assert events == f"/augmentations/{made['id']}/events"
    client.post(f"/augmentations/{made['id']}/cancel")
    (only,) = events_in(client.get(events, headers={"Last-Event-ID": "0.2.queued"}).text)
    assert (only["id"], only["event"], json.loads(only["data"])["count"]) == ("0.2.cancelled", "ended", 2)
    again = client.get(events, headers={"Last-Event-ID": only["id"]})
    assert (again.status_code, again.text) == (204, "")


def test_runs_of_other_tenants_are_unknown(client: TestClient, store: ObjectStore) -> None:
    for kind in (RunKind.EXPORT, RunKind.AUGMENTATION):
        spec = RunSpec(run=new_run_id(kind), tenant="lab", created_at=datetime.now(UTC), work={})
        RunRepository(store).write_spec(spec)
        answers = [client.get(f"/{kind.plural}/{run}/events") for run in (spec.run, new_run_id(kind))]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert {answer.json()["type"] for answer in answers} == {"/problems/unknown-run"}
    assert client.get("/datasets/nobody/1/events").status_code == 404


def test_progress_reports_are_rate_limited(
    worker: BulkWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "_REPORT_INTERVAL_S", SLOW_S)
    spec = accepted(worker)
    redis = Redis.from_url(settings.broker_url)
    with redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(redis_keys.events(spec.run))

        def handle(context: RunContext) -> Finished:
            for done in range(1000):
                context.report_progress(done, 1000)
            return DONE

        assert execute_run(worker, spec.run, kinds(handle)) is RunOutcome.ENDED
        redis.publish(redis_keys.events(spec.run), "last")
        said: list[Any] = []
        while b"last" not in said:
            message = channel.get_message(timeout=10)
            said += [message["data"]] if message is not None else []
    redis.close()
    assert [json.loads(text) for text in said[:-1]] == [{"done": 0}, {"ended": True}]


def test_a_disconnected_client_leaves_no_subscription(app: FastAPI, worker: BulkWorker) -> None:
    spec = accepted(worker)

    async def look_and_leave() -> None:
        async with following(app, spec) as stream:
            await following_event(stream)
            assert app.state.services.watcher._waiting
        assert not app.state.services.watcher._waiting

    asyncio.run(look_and_leave())
