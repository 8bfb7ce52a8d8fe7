"""Tests of a bulk worker as a process: it is killed or stopped, and another one continues."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading

import pytest
from redis import Redis
from standardwebhooks import Webhook
from starlette.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from service.store import ObjectStore
from service.webhooks.secrets import SECRET_FILE
from tests.service.webhooks.receiver import receiving
from tests.waiting import until
from tests.workers.bulk.conftest import Start, dataset_tar, send


def hashes(client: TestClient, export: str) -> dict[str, str]:
    page = client.get(f"/exports/{export}/files", params={"limit": 500}).json()
    for file in page["files"]:
        assert hashlib.sha256(client.get(file["url"]).content).hexdigest() == file["sha256"]
    return {file["path"]: file["sha256"] for file in page["files"]}


def test_another_worker_continues_after_a_kill_with_the_same_bytes(
    settings: Settings, store: ObjectStore, start: Start
) -> None:
    # through the real queue: what the API sends, Celery's worker takes
    client = TestClient(create_app(settings, store=store))
    worker = start()
    send(client, dataset_tar(300))
    until(lambda: client.get("/datasets/scenes").json()["state"] == "succeeded")
    body = {"sources": [{"dataset": "scenes"}], "format": "coco", "shard_items": 10}

    whole = client.post("/exports", json=body).json()["id"]
    until(lambda: client.get(f"/exports/{whole}").json()["state"] == "succeeded")
    assert len(hashes(client, whole)) > 30

    cut = client.post("/exports", json=body).json()["id"]
    until(lambda: len(list(store.list(f"exports/{cut}/checkpoints/"))) >= 5)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    parts = {info.key: info.etag for info in store.list(f"exports/{cut}/files/part-")}
    assert client.get(f"/exports/{cut}").json()["state"] == "running"
    assert 1 <= len(parts) < 30
    again = start()
    until(lambda: client.get(f"/exports/{cut}").json()["state"] == "succeeded")
    assert hashes(client, cut) == hashes(client, whole)
    # the last part may have been on its way when its checkpoint was not; those before it were not touched again
    after = {info.key: info.etag for info in store.list(f"exports/{cut}/files/part-")}
    assert all(after[key] == etag for key, etag in sorted(parts.items())[:-1])

    again.send_signal(signal.SIGTERM)
    assert again.wait(timeout=20) == 0
    assert not list((settings.data_dir / "scratch").glob("*/*"))


def test_a_worker_that_is_stopped_requeues_its_run(settings: Settings, store: ObjectStore, start: Start) -> None:
    client = TestClient(create_app(settings, store=store))
    worker = start()
    send(client, dataset_tar(400))
    until(lambda: client.get("/datasets/scenes").json()["done"] > 0)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=20) == 0
    # told to be no failure, and not begun from nothing in the eyes of who looks
    assert client.get("/datasets/scenes").json()["state"] in ("running", "succeeded")
    start()
    until(lambda: client.get("/datasets/scenes").json()["state"] == "succeeded")
    assert client.get("/datasets/scenes").json()["items"] == 400


def test_a_webhook_is_sent_again_if_its_worker_is_killed_meanwhile(
    settings: Settings, store: ObjectStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINSET_WEBHOOK_ALLOW_PRIVATE", "true")
    client = TestClient(create_app(settings.model_copy(update={"webhook_allow_private": True}), store=store))
    with receiving() as receiver:
        receiver.held = threading.Event()
        worker = start()
        send(client, dataset_tar(3))
        until(lambda: client.get("/datasets/scenes").json()["state"] == "succeeded")
        body = {"sources": [{"dataset": "scenes"}], "format": "coco", "callback_url": receiver.url}
        export = client.post("/exports", json=body).json()
        until(lambda: receiver.got)
        # it has ended, it is being told, and nothing of that is recorded yet
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert client.get(export["links"]["self"]).json()["callback"]["state"] == "pending"
        receiver.held.set()
        # the killed one's turn is over when Redis has lost it, or in half a minute
        Redis.from_url(settings.broker_url).flushall()
        again = start()
        until(lambda: client.get(export["links"]["self"]).json()["callback"]["state"] == "delivered")
        again.send_signal(signal.SIGTERM)
        assert again.wait(timeout=20) == 0
    first, second = receiver.got
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"{export['id']}_ended"
    message = Webhook((settings.data_dir / SECRET_FILE).read_text()).verify(second.body, second.headers)
    assert first.body == second.body
    assert message["type"] == "export.succeeded"


def test_a_bulk_worker_loads_no_torch(settings: Settings) -> None:
    program = """
import sys
from service.settings import Settings
from workers.bulk.celery_app import create_bulk_app
from workers.bulk.worker import open_bulk_worker
from workers.maintenance.webhook_sender import WebhookSender
settings = Settings(data_dir=sys.argv[1], broker_url="redis://127.0.0.1:1/0")
worker = open_bulk_worker(settings)
create_bulk_app(settings, worker)
WebhookSender(worker)
print([name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(settings.data_dir)], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == "[]"
