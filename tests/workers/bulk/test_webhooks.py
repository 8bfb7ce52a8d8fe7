"""Tests of webhooks of exports and augmentation sets: admission, delivery despite crashes, and deletion."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from standardwebhooks import Webhook
from starlette.testclient import TestClient

from service.api.app import create_app
from service.errors import InvalidDataset
from service.jobs.repository import JobRepository
from service.kit.run_kinds import RunKind, new_run_id
from service.kit.webhook_secrets import parse_secrets, written
from service.runs.spec import RunSpec
from service.runs.webhook_payload import RUN_EXAMPLE, RunCallbackMessage
from service.settings import Settings
from service.store import ObjectStore, run_keys
from service.store.folder import FolderStore
from service.webhooks.outbox import CallbackState
from service.webhooks.secrets import SECRET_FILE, tenant_keys
from service.webhooks.spec import Callback
from tests.service.api.support import finish
from tests.service.webhooks.delivering import (
    SERVICE,
    Clock,
    deliver,
    pending,
)
from tests.service.webhooks.receiver import Receiver
from tests.waiting import until
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from tests.workers.bulk.test_execute import DONE, kinds
from tests.workers.fakes import FailingStore
from workers.bulk.context import Finished, RunContext
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.sweeper import RunSweeper
from workers.bulk.worker import BulkWorker
from workers.maintenance.webhook_sender import WebhookSender

Execute = Callable[[str], RunOutcome]
Hire = Callable[..., BulkWorker]
NAMES = ("building", "water", "vegetation", "unlabelled")
LOOPBACK = "https://127.0.0.1/hook"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_allow_private": True, "webhook_timeout_s": 5.0})


@pytest.fixture
def scenes(client: TestClient, execute: Execute, run_queue: RecordingRunQueue) -> str:
    """Id of an imported dataset."""
    found = send(client, dataset_tar(3, names=NAMES))["id"]
    execute(run_queue.sent[-1])
    return str(found)


def accepted(worker: BulkWorker, receiver: Receiver, kind: RunKind = RunKind.EXPORT, **changes: Any) -> RunSpec:
    """Accepts a run with a callback URL."""
    callback = Callback(url=receiver.url, service_url=SERVICE)
    spec = RunSpec(run=new_run_id(kind), created_at=datetime.now(UTC), work={}, callback=callback, **changes)
    worker.runs.write_spec(spec)
    return spec


def ended(worker: BulkWorker, receiver: Receiver, **changes: Any) -> RunSpec:
    """Accepts and ends a run with a callback URL."""
    spec = accepted(worker, receiver, **changes)
    assert execute_run(worker, spec.run, kinds(lambda context: DONE)) is RunOutcome.ENDED
    return spec


def test_an_exports_webhook_is_verified_by_standard_webhooks(
    client: TestClient, worker: BulkWorker, execute: Execute, scenes: str, receiver: Receiver, settings: Settings
) -> None:
    body = {"sources": [{"dataset": scenes}], "format": "folders", "name": "mine", "callback_url": receiver.url}
    accepted = client.post("/exports", json=body).json()
    run = accepted["id"]
    waiting = {"id": f"{run}_ended", "url": receiver.url, "state": "waiting", "attempts": [], "next_at": None}
    assert (accepted["callback"], accepted["request"]["callback_url"]) == (waiting, receiver.url)
    assert execute(run) is RunOutcome.ENDED
    assert client.get(f"/exports/{run}").json()["callback"] == {**waiting, "state": "pending"}
    assert pending(worker) == [run]
    deliver(worker)
    (got,) = receiver.got
    message = Webhook((settings.data_dir / SECRET_FILE).read_text()).verify(got.body, got.headers)
    assert got.headers["webhook-id"] == f"{run}_ended"
    view = client.get(f"/exports/{run}").json()
    here = f"{settings.public_url}/exports/{run}"
    data = message["data"]
    assert (message["type"], message["timestamp"]) == ("export.succeeded", data["finished_at"])
    assert datetime.fromisoformat(data.pop("created_at")) == datetime.fromisoformat(view["created_at"])
    assert datetime.fromisoformat(data.pop("finished_at")) == datetime.fromisoformat(view["finished_at"])
    assert data == {
        "id": run,
        "name": "mine",
        "state": "succeeded",
        "done": 3,
        "total": 3,
        "reason": None,
        "links": {"self": here, "files": f"{here}/files"},
    }
    found = view["callback"]
    assert (found["state"], [(a["status"], a["error"]) for a in found["attempts"]]) == ("delivered", [(204, None)])
    assert client.get("/exports").json()["exports"][0]["callback"] == found
    assert pending(worker) == []
    deliver(worker)
    assert len(receiver.got) == 1


def test_a_set_cancelled_before_its_start_sends_a_webhook(
    client: TestClient, worker: BulkWorker, scenes: str, receiver: Receiver
) -> None:
    body = {"dataset": scenes, "model": "aerial", "count": 2, "seed": 1, "callback_url": receiver.url}
    run = client.post("/augmentations", json=body).json()["id"]
    spec = worker.runs.read_spec(run)
    assert spec.request["callback_url"] == receiver.url
    assert "callback_url" not in spec.work["request"]
    assert client.post(f"/augmentations/{run}/cancel").json()["callback"]["state"] == "pending"
    deliver(worker)
    (message,) = [json.loads(got.body) for got in receiver.got]
    assert (message["type"], message["data"]["state"], message["data"]["total"]) == (
        "augmentation.cancelled",
        "cancelled",
        2,
    )
    assert message["data"]["links"]["samples"].endswith(f"/augmentations/{run}/samples")
    RunCallbackMessage.model_validate(message)


def test_a_failed_delivery_is_retried_and_its_attempts_are_kept(
    worker: BulkWorker, receiver: Receiver, store: ObjectStore
) -> None:
    receiver.answers = [(500, {}), (204, {})]
    clock = Clock(datetime.now(UTC))
    spec = accepted(worker, receiver)

    def wrong(context: RunContext) -> Finished:
        raise InvalidDataset("there is no pair")

    assert execute_run(worker, spec.run, kinds(wrong)) is RunOutcome.ENDED
    deliver(worker, clock)
    deliver(worker, clock)
    assert len(receiver.got) == 1, "it is not due yet"
    clock.go_on(7)
    # as if its worker had been killed before the clean-up
    store.put(run_keys.open_run(spec.run), b"")
    assert RunSweeper(worker).run_once()
    assert store.head(run_keys.open_run(spec.run)) is None
    deliver(worker, clock)
    assert len({(got.headers["webhook-id"], got.body) for got in receiver.got}) == 1
    message = json.loads(receiver.got[1].body)
    assert (message["type"], message["data"]["reason"]) == ("export.failed", "there is no pair")
    found = worker.runs.outbox.read(spec.run)
    assert (found.state, [a.status for a in found.attempts]) == (CallbackState.DELIVERED, [500, 204])


def test_one_sender_serves_jobs_and_runs(
    client: TestClient, worker: BulkWorker, receiver: Receiver, store: ObjectStore
) -> None:
    run = ended(worker, receiver)
    body = {"model": "aerial", "classes": ["water"], "count": 2, "callback_url": receiver.url}
    job = client.post("/generate", json=body).json()["id"]
    finish(JobRepository(store), JobRepository(store).read_spec(job))
    assert set(pending(worker)) == {job, run.run}
    deliver(worker)
    told = {json.loads(got.body)["data"]["id"]: json.loads(got.body)["type"] for got in receiver.got}
    assert told == {run.run: "export.succeeded", job: "job.succeeded"}


def test_each_tenants_webhooks_are_signed_with_its_own_key(
    worker: BulkWorker, receiver: Receiver, settings: Settings
) -> None:
    ended(worker, receiver, tenant="lab")
    deliver(worker)
    (got,) = receiver.got
    secret = (settings.data_dir / SECRET_FILE).read_text()
    (derived,) = tenant_keys(parse_secrets(secret), "lab")
    Webhook(written(derived)).verify(got.body, got.headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(secret).verify(got.body, got.headers)


def test_no_webhook_is_sent_before_the_run_has_a_summary(
    hire: Hire, receiver: Receiver, tmp_path: Path, run_queue: RecordingRunQueue
) -> None:
    failing = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    dying = hire(store=failing)
    spec = accepted(dying, receiver)
    failing.fail_on = "summary"
    assert execute_run(dying, spec.run, kinds(lambda context: DONE)) is RunOutcome.FAILED
    assert dying.runs.read_summary(spec.run) is None
    assert pending(dying) == [spec.run]
    dying.leases.forget(spec.run)
    other = hire(store=FolderStore(failing.root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000"))
    deliver(other)
    assert receiver.got == []
    assert pending(other) == [spec.run]
    assert RunSweeper(other).run_once()
    assert run_queue.sent == [spec.run]
    assert execute_run(other, spec.run, kinds(lambda context: DONE)) is RunOutcome.ENDED
    deliver(other)
    assert [json.loads(got.body)["type"] for got in receiver.got] == ["export.succeeded"]
    assert pending(other) == []


def test_a_run_does_not_end_without_its_outbox_entry(hire: Hire, receiver: Receiver, tmp_path: Path) -> None:
    failing = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    worker = hire(store=failing)
    spec = accepted(worker, receiver)
    failing.fail_on = "callbacks/pending"
    assert execute_run(worker, spec.run, kinds(lambda context: DONE)) is RunOutcome.FAILED
    assert worker.runs.read_summary(spec.run) is None
    failing.fail_on = None
    assert execute_run(worker, spec.run, kinds(lambda context: DONE)) is RunOutcome.ENDED
    deliver(worker)
    assert len(receiver.got) == 1


def test_another_worker_sends_after_a_kill_and_a_flushed_redis(
    hire: Hire, receiver: Receiver, settings: Settings
) -> None:
    dying = hire()
    spec = ended(dying, receiver)
    dying.close()
    Redis.from_url(settings.broker_url).flushall()
    deliver(hire())
    assert [json.loads(got.body)["data"]["id"] for got in receiver.got] == [spec.run]


def test_a_deleted_run_sends_no_webhook_and_leaves_nothing(
    worker: BulkWorker, receiver: Receiver, store: ObjectStore
) -> None:
    before = {info.key for info in store.list("")}
    receiver.answers = [(500, {})]
    spec = ended(worker, receiver)
    deliver(worker)
    assert len(worker.runs.outbox.read(spec.run).attempts) == 1
    assert pending(worker) == [spec.run]
    worker.runs.delete(spec)
    deliver(worker, Clock(datetime.max.replace(tzinfo=UTC)))
    assert RunSweeper(worker).run_once()
    assert len(receiver.got) == 1
    assert {info.key for info in store.list("")} == before


def test_a_run_deleted_during_its_delivery_leaves_nothing(
    worker: BulkWorker, receiver: Receiver, store: ObjectStore
) -> None:
    before = {info.key for info in store.list("")}
    receiver.answers = [(500, {})]
    receiver.held = threading.Event()
    spec = ended(worker, receiver)
    sender = WebhookSender(worker)
    assert sender.run_once()
    until(lambda: receiver.got)
    worker.runs.delete(spec)
    assert RunSweeper(worker).run_once()
    assert {info.key for info in store.list("")} == before
    receiver.held.set()
    assert sender.wait(30)
    assert {info.key for info in store.list("")} == before


def test_a_forbidden_address_is_refused_with_the_other_faults(
    client: TestClient, scenes: str, run_queue: RecordingRunQueue
) -> None:
    sent = list(run_queue.sent)
    refused = "http://169.254.169.254/latest"
    export = client.post("/exports", json={"sources": [{}], "format": "coco", "callback_url": refused})
    assert [fault["pointer"] for fault in export.json()["errors"]] == ["/callback_url", "/sources/0"]
    body = {"dataset": scenes, "model": "aerial", "count": 2, "size": 7, "callback_url": refused}
    for dry_run in (True, False):
        answer = client.post("/augmentations", json={**body, "dry_run": dry_run})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/callback_url", "/size"]
        assert "of special use" in answer.json()["errors"][0]["detail"]
    assert run_queue.sent == sent


def test_private_addresses_need_a_setting(settings: Settings, store: ObjectStore) -> None:
    strict = settings.model_copy(update={"webhook_allow_private": False})
    with TestClient(create_app(strict, store=store, run_queue=RecordingRunQueue())) as client:
        body = {"sources": [{"dataset": "nobody"}], "format": "coco", "callback_url": LOOPBACK}
        answer = client.post("/exports", json=body).json()
        assert [fault["pointer"] for fault in answer["errors"]] == ["/callback_url"]
        assert "loopback" in answer["detail"]
        assert "TWINSET_WEBHOOK_ALLOW_PRIVATE" in answer["detail"]


def test_an_idempotency_key_covers_the_callback_url(client: TestClient, scenes: str, receiver: Receiver) -> None:
    body = {"sources": [{"dataset": scenes}], "format": "voc", "callback_url": receiver.url}
    headers = {"Idempotency-Key": "k"}
    run = client.post("/exports", json=body, headers=headers).json()["id"]
    assert client.post("/exports", json=body, headers=headers).json()["id"] == run
    other = client.post("/exports", json={**body, "callback_url": LOOPBACK}, headers=headers)
    assert other.status_code == 409


def test_a_run_without_a_callback_url_leaves_no_webhook_objects(
    client: TestClient, execute: Execute, worker: BulkWorker, scenes: str, store: ObjectStore
) -> None:
    run = client.post("/exports", json={"sources": [{"dataset": scenes}], "format": "voc"}).json()["id"]
    old = json.loads(store.get(run_keys.run_spec(run)))
    del old["callback"]
    store.put(run_keys.run_spec(run), json.dumps(old).encode())
    assert execute(run) is RunOutcome.ENDED
    assert client.get(f"/exports/{run}").json()["callback"] is None
    assert list(store.list("callbacks/")) == [] == list(store.list(run_keys.run_callbacks_prefix(run)))
    deliver(worker)


def test_openapi_describes_the_webhooks(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    headers = {"webhook-id", "webhook-timestamp", "webhook-signature"}
    operations = set()
    for path in ("/exports", "/augmentations"):
        (told,) = description["paths"][path]["post"]["callbacks"].values()
        operation = told["{$request.body#/callback_url}"]["post"]
        operations.add(operation["operationId"])
        assert {parameter["name"] for parameter in operation["parameters"]} == headers
        assert set(operation["responses"]) == {"204", "410", "default"}
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/RunCallbackMessage"}
    assert len(operations) == 2
    assert description["components"]["schemas"]["RunCallbackMessage"]["examples"][0]["type"] == RUN_EXAMPLE["type"]
    assert RunCallbackMessage.model_validate(RUN_EXAMPLE).model_dump(mode="json") == RUN_EXAMPLE
