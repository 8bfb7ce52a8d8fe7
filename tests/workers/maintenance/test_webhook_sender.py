"""Tests of the webhook sender: signatures, retries, and when it stops retrying."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from service.broker.live_state import LiveState
from service.jobs.cancel import cancel
from service.jobs.spec import JobSpec, SampleRecord
from service.kit.ids import new_job_id
from service.kit.states import JobState
from service.kit.webhook_secrets import new_secret, parse_secrets, written
from service.settings import Settings
from service.store import keys
from service.store.folder import FolderStore
from service.webhooks.backoff import DELAYS_S
from service.webhooks.outbox import CallbackState
from service.webhooks.secrets import SECRET_FILE, tenant_keys, webhook_keys
from tests.service.webhooks.delivering import (
    SERVICE,
    Clock,
    deliver,
    pending,
)
from tests.service.webhooks.receiver import Receiver, receiving
from tests.waiting import until
from tests.workers.conftest import Hire, register
from tests.workers.fakes import CountingStore, tiny_spec
from tests.workers.maintenance.webhook_jobs import accepted, ended, stands
from workers.generation.chunk import generate_chunk
from workers.generation.sweeper import Sweeper
from workers.generation.worker import Worker
from workers.maintenance.webhook_sender import WebhookSender


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_allow_private": True, "webhook_timeout_s": 5.0})


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.now(UTC))


def test_a_jobs_webhook_is_verified_by_standard_webhooks(worker: Worker, receiver: Receiver) -> None:
    spec = ended(worker, receiver, name="mine", count=3)
    assert pending(worker) == [spec.job]
    deliver(worker)
    (got,) = receiver.got
    secret = (worker.settings.data_dir / SECRET_FILE).read_text()
    message = Webhook(secret).verify(got.body, got.headers)
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    here = f"{SERVICE}/jobs/{spec.job}"
    assert message["type"] == "job.succeeded"
    assert datetime.fromisoformat(message["timestamp"]) == summary.finished_at
    data = message["data"]
    assert datetime.fromisoformat(data.pop("created_at")) == spec.created_at
    assert datetime.fromisoformat(data.pop("finished_at")) == summary.finished_at
    assert data == {
        "id": spec.job,
        "name": "mine",
        "state": "succeeded",
        "done": 3,
        "failed": 0,
        "total": 3,
        "reason": None,
        "links": {"self": here, **{part: f"{here}/{part}" for part in ("samples", "manifest", "archive")}},
    }
    assert got.headers["webhook-id"] == f"{spec.job}_ended"
    assert got.headers["user-agent"].startswith("twinset/")
    found = stands(worker, spec)
    assert (found.state, [(a.number, a.status, a.error) for a in found.attempts]) == (
        CallbackState.DELIVERED,
        [(1, 204, None)],
    )
    assert pending(worker) == []
    deliver(worker)
    assert len(receiver.got) == 1


def test_every_final_state_sends_a_webhook(worker: Worker, receiver: Receiver, settings: Settings) -> None:
    failed = ended(worker, receiver, classes=None, prompt="nan")
    partial = accepted(worker, receiver, count=4)
    generate_chunk(worker, partial.job, 0)
    worker.repository.chunks.write(_given_up(worker, partial, 1))
    assert Sweeper(worker).run_once()
    cancelled = accepted(worker, receiver)
    live_state = LiveState(settings.broker_url)
    cancel(cancelled, worker.repository, live_state)
    live_state.close()
    summaries = {spec.job: worker.repository.read_summary(spec.job) for spec in (failed, partial, cancelled)}
    assert [summary and summary.state for summary in summaries.values()] == [
        JobState.FAILED,
        JobState.PARTIAL,
        JobState.CANCELLED,
    ]
    deliver(worker)
    told = {json.loads(got.body)["data"]["id"]: json.loads(got.body)["type"] for got in receiver.got}
    assert told == {failed.job: "job.failed", partial.job: "job.partial", cancelled.job: "job.cancelled"}


def _given_up(worker: Worker, spec: JobSpec, chunk: int) -> Any:
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    items = tuple(SampleRecord(index=index, seed=1, error="the test says so") for index in spec.chunk_range(chunk))
    return record.model_copy(update={"chunk": chunk, "items": items})


def test_a_job_without_a_callback_url_leaves_no_webhook_objects(worker: Worker, store: FolderStore) -> None:
    spec = tiny_spec(count=2, chunk_size=2)
    worker.repository.write_spec(spec)
    generate_chunk(worker, spec.job, 0)
    assert worker.repository.read_summary(spec.job) is not None
    assert list(store.list("callbacks/")) == [] == list(store.list(keys.job_callbacks_prefix(spec.job)))


def test_a_failed_delivery_is_retried_with_the_same_id_and_body(
    worker: Worker, receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [(500, {}), (302, {"Location": receiver.url}), (204, {})]
    spec = ended(worker, receiver)
    deliver(worker, clock)
    first = stands(worker, spec)
    assert first.state is CallbackState.PENDING
    assert first.next_at is not None
    assert 4 <= (first.next_at - clock()).total_seconds() <= 6
    deliver(worker, clock)
    assert len(receiver.got) == 1, "it is not due yet"
    clock.go_on(7)
    deliver(worker, clock)
    clock.go_on(73)
    deliver(worker, clock)
    assert [got.method for got in receiver.got] == ["POST"] * 3, "the redirect was not followed"
    assert len({(got.headers["webhook-id"], got.body) for got in receiver.got}) == 1
    stamps = [int(got.headers["webhook-timestamp"]) for got in receiver.got]
    assert stamps == [stamps[0], stamps[0] + 7, stamps[0] + 80]
    secret = (worker.settings.data_dir / SECRET_FILE).read_text()
    Webhook(secret).verify(receiver.got[2].body, receiver.got[2].headers)
    found = stands(worker, spec)
    assert found.state is CallbackState.DELIVERED
    assert found.next_at is None
    assert [(a.number, a.status, a.result) for a in found.attempts] == [
        (1, 500, "failed"),
        (2, 302, "failed"),
        (3, 204, "delivered"),
    ]


def test_delivery_stops_after_about_a_day(worker: Worker, receiver: Receiver, clock: Clock) -> None:
    receiver.answers = [(404, {})]
    spec = ended(worker, receiver)
    began = clock()
    sender = WebhookSender(worker, now=clock)
    for _ in range(40):
        assert sender.run_once()
        assert sender.wait(30)
        found = stands(worker, spec)
        if found.state.settled:
            break
        assert found.next_at is not None
        clock.moment = found.next_at
    assert found.state is CallbackState.FAILED
    assert len(found.attempts) == len(receiver.got) == len(DELAYS_S) + 1
    assert timedelta(hours=18) < clock() - began < timedelta(hours=32)
    assert pending(worker) == []


def test_a_410_stops_delivery_and_retry_after_is_respected(worker: Worker, receiver: Receiver, clock: Clock) -> None:
    receiver.answers = [(503, {"Retry-After": "600"}), (410, {})]
    spec = ended(worker, receiver)
    deliver(worker, clock)
    clock.go_on(599)
    deliver(worker, clock)
    assert len(receiver.got) == 1
    clock.go_on(130)
    deliver(worker, clock)
    found = stands(worker, spec)
    assert (found.state, found.attempts[-1].status, found.next_at) == (CallbackState.FAILED, 410, None)
    assert pending(worker) == []


def test_a_receiver_that_does_not_answer_blocks_no_other(hire: Hire, receiver: Receiver) -> None:
    worker = hire(webhook_timeout_s=0.5)
    with receiving() as quick:
        receiver.held = threading.Event()
        slow, fast = ended(worker, receiver), ended(worker, quick)
        sender = WebhookSender(worker)
        assert sender.run_once()
        until(lambda: stands(worker, fast).state is CallbackState.DELIVERED, timeout_s=20)
        assert sender.wait(20)
    (attempt,) = stands(worker, slow).attempts
    assert (attempt.status, attempt.error, attempt.result) == (None, "no answer within 0.5 s", "failed")
    assert 0.4 < attempt.seconds < 5


def test_a_name_that_resolves_to_a_private_address_later_is_refused(hire: Hire, receiver: Receiver) -> None:
    worker = hire(webhook_allow_private=False)
    spec = ended(worker, f"https://rebinding.example:{receiver.port}/hook")
    deliver(worker, resolve=lambda host, port: ["127.0.0.1"])
    plain = ended(worker, receiver)
    deliver(worker)
    assert receiver.got == []
    assert "no webhook may be sent to" in str(stands(worker, spec).attempts[0].error)
    assert "must start with https" in str(stands(worker, plain).attempts[0].error), (
        "accepted when the setting was another"
    )
    assert {stands(worker, each).state for each in (spec, plain)} == {CallbackState.PENDING}


def test_each_secret_signs_and_each_tenant_has_its_own(hire: Hire, receiver: Receiver) -> None:
    new, old = new_secret(), new_secret()
    worker = hire(webhook_secret=Settings(webhook_secret=f"{new} {old}").webhook_secret)
    ended(worker, receiver)
    deliver(worker)
    ended(worker, receiver, tenant="lab")
    deliver(worker)
    default, lab = receiver.got
    for secret in (new, old):
        Webhook(secret).verify(default.body, default.headers)
        (derived,) = tenant_keys(parse_secrets(secret), "lab")
        Webhook(written(derived)).verify(lab.body, lab.headers)
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(secret).verify(lab.body, lab.headers)
    assert webhook_keys(worker.settings) == parse_secrets(f"{new} {old}")


def test_a_worker_without_a_secret_sends_nothing_and_warns(
    hire: Hire, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    worker, without = hire(), hire(store_url="s3://elsewhere")
    with caplog.at_level(logging.WARNING):
        assert not WebhookSender(without).run_once()
        assert caplog.text == "", "nothing is pending"
        ended(worker, receiver)
        assert not WebhookSender(without).run_once()
        assert "set TWINSET_WEBHOOK_SECRET" in caplog.text
    deliver(worker)
    assert len(receiver.got) == 1


def test_only_the_origin_of_a_url_is_logged(
    worker: Worker, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        ended(worker, receiver)
        deliver(worker)
    assert f"webhook to http://127.0.0.1:{receiver.port}, attempt 1: 204, delivered" in caplog.text
    assert "of=mine" not in caplog.text


def test_a_run_reads_only_due_webhooks(hire: Hire, receiver: Receiver, clock: Clock, tmp_path: Path) -> None:
    counting = CountingStore(tmp_path / "counting", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(counting)
    worker = hire(store=counting)
    receiver.answers = [(500, {}), (204, {})]
    waiting = ended(worker, receiver)
    for _ in range(3):
        other = tiny_spec(count=2, chunk_size=2)
        worker.repository.write_spec(other)
        generate_chunk(worker, other.job, 0)
    sender = WebhookSender(worker, now=clock)
    counting.read.clear()
    assert sender.run_once()
    assert sender.wait(20)
    assert {key.split("/")[1].removesuffix(".json") for key in counting.read} == {waiting.job}
    counting.read.clear()
    for _ in range(5):
        assert sender.run_once()
        assert sender.wait(20)
    assert counting.read == [], "it is known not to be due"
    clock.go_on(7)
    assert sender.run_once()
    assert sender.wait(20)
    assert stands(worker, waiting).state is CallbackState.DELIVERED


def test_many_webhooks_arrive_once_each_and_from_both_ends(worker: Worker, receiver: Receiver) -> None:
    moments = [datetime.now(UTC) + timedelta(milliseconds=number) for number in range(30)]
    specs = [accepted(worker, receiver, job=new_job_id(moment)) for moment in moments]
    for spec in specs:
        worker.repository.request_cancel(spec.job)
        worker.repository.conclude(spec)
    deliver(worker)
    told = [json.loads(got.body)["data"]["id"] for got in receiver.got]
    assert sorted(told) == sorted(spec.job for spec in specs)
    # four at a time to one receiver: the two oldest and the two newest come first
    assert told[0] in [spec.job for spec in (*specs[:2], *specs[-2:])]
