"""Tests of webhooks despite kills, lost writes and a flushed Redis: sent at least once, under one id."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.broker import redis_keys
from service.errors import StoreUnavailable
from service.kit.ids import new_job_id
from service.settings import Settings
from service.store.folder import FolderStore
from service.webhooks.outbox import CallbackState
from tests.service.webhooks.delivering import deliver, pending
from tests.service.webhooks.receiver import Receiver
from tests.waiting import until
from tests.workers.conftest import Hire, register
from tests.workers.fakes import FailingStore
from tests.workers.maintenance.webhook_jobs import accepted, ended, stands
from workers.generation.chunk import generate_chunk
from workers.generation.sweeper import Sweeper
from workers.generation.worker import Worker
from workers.maintenance.webhook_sender import WebhookSender


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_allow_private": True, "webhook_timeout_s": 5.0})


def test_no_webhook_is_sent_before_the_job_has_a_summary(hire: Hire, receiver: Receiver, tmp_path: Path) -> None:
    failing = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(failing)
    dying = hire(store=failing)
    failing.fail_on = "summary"
    spec = accepted(dying, receiver)
    generate_chunk(dying, spec.job, 0)
    assert dying.repository.read_summary(spec.job) is None
    assert pending(dying) == [spec.job]
    other = hire(store=FolderStore(failing.root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000"))
    deliver(other)
    assert receiver.got == []
    assert pending(other) == [spec.job]
    assert Sweeper(other).run_once()
    deliver(other)
    assert [json.loads(got.body)["type"] for got in receiver.got] == ["job.succeeded"]
    assert pending(other) == []


def test_a_job_does_not_end_without_its_outbox_entry(hire: Hire, receiver: Receiver, tmp_path: Path) -> None:
    failing = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(failing)
    worker = hire(store=failing)
    spec = accepted(worker, receiver)
    failing.fail_on = "callbacks/pending"
    generate_chunk(worker, spec.job, 0)
    assert worker.repository.read_summary(spec.job) is None
    failing.fail_on = None
    assert Sweeper(worker).run_once()
    deliver(worker)
    assert len(receiver.got) == 1


def test_another_worker_delivers_after_a_kill_and_a_flushed_redis(
    hire: Hire, receiver: Receiver, redis: Redis, store: FolderStore
) -> None:
    dying = hire()
    spec = ended(dying, receiver)
    dying.close()
    redis.flushall()
    deliver(hire(store=FolderStore(store.root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")))
    assert [json.loads(got.body)["data"]["id"] for got in receiver.got] == [spec.job]


def test_after_a_kill_before_the_record_it_is_sent_again_under_the_same_id(
    hire: Hire, receiver: Receiver, tmp_path: Path
) -> None:
    failing = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(failing)
    worker = hire(store=failing)
    spec = ended(worker, receiver)
    failing.fail_on = f"jobs/{spec.job}/callbacks/"
    deliver(worker)
    assert len(receiver.got) == 1
    assert stands(worker, spec).attempts == ()
    assert pending(worker) == [spec.job]
    failing.fail_on = None
    deliver(worker)
    assert len(receiver.got) == 2
    assert receiver.got[0].headers["webhook-id"] == receiver.got[1].headers["webhook-id"]
    assert stands(worker, spec).state is CallbackState.DELIVERED


def test_after_a_kill_after_the_record_it_is_not_sent_again(worker: Worker, receiver: Receiver) -> None:
    spec = ended(worker, receiver)
    deliver(worker)
    # the outbox entry is there again, as after a second worker that ends the job late
    worker.repository.outbox.enqueue(spec.job)
    deliver(worker)
    assert len(receiver.got) == 1
    assert pending(worker) == []


def test_two_concurrent_senders_lose_no_attempt_and_delivered_stays_delivered(
    hire: Hire, receiver: Receiver, redis: Redis
) -> None:
    one, other = hire(), hire()
    spec = ended(one, receiver)
    receiver.answers = [(204, {}), (500, {})]
    receiver.held = threading.Event()
    senders = [WebhookSender(one), WebhookSender(other)]
    assert senders[0].run_once()
    until(lambda: len(receiver.got) == 1)
    assert not senders[1].run_once(), "the first one holds the leader lock"
    redis.flushall()
    assert senders[1].run_once()
    until(lambda: len(receiver.got) == 2)
    receiver.held.set()
    assert all(sender.wait(20) for sender in senders)
    found = stands(one, spec)
    assert [a.number for a in found.attempts] == [1, 2]
    assert {(a.status, a.result) for a in found.attempts} == {(204, "delivered"), (500, "failed")}
    assert found.state is CallbackState.DELIVERED
    deliver_again = WebhookSender(other)
    redis.flushall()
    assert deliver_again.run_once()
    assert deliver_again.wait(20)
    assert len(receiver.got) == 2
    assert pending(one) == []


def test_an_outbox_entry_without_a_job_is_removed_unless_the_store_fails(
    worker: Worker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.repository.outbox.enqueue(new_job_id())
    deliver(worker)
    assert pending(worker) == []
    spec = ended(worker, receiver)
    plain_get = worker.repository.store.get

    def fail(key: str, **options: Any) -> bytes:
        raise StoreUnavailable(f"{key} could not be read: the test says so")

    monkeypatch.setattr(worker.repository.store, "get", fail)
    deliver(worker)
    monkeypatch.setattr(worker.repository.store, "get", plain_get)
    assert pending(worker) == [spec.job]
    assert receiver.got == []
    deliver(worker)
    assert len(receiver.got) == 1


def test_the_thread_delivers_and_continues_when_redis_is_back(worker: Worker, receiver: Receiver) -> None:
    sender = WebhookSender(worker)
    sender.start()
    try:
        spec = ended(worker, receiver)
        until(lambda: stands(worker, spec).state is CallbackState.DELIVERED)
        worker.redis.flushall()
        again = ended(worker, receiver)
        until(lambda: stands(worker, again).state is CallbackState.DELIVERED)
    finally:
        sender.stop()
    assert not worker.redis.exists(redis_keys.leader("webhook-sender")), "the next worker need not wait for the lock"
