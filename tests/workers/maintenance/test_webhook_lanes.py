"""Lanes of the webhook sender: a tenant's receivers that never answer delay no webhook of another tenant."""

from __future__ import annotations

import socket
import time

import pytest

from service.settings import Settings
from service.webhooks.outbox import CallbackState
from tests.service.webhooks.receiver import Receiver
from tests.waiting import until
from tests.workers.conftest import Hire
from tests.workers.maintenance.webhook_jobs import accepted, ended, stands
from workers.maintenance.webhook_sender import WebhookSender, _from_both_ends


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_allow_private": True, "webhook_timeout_s": 60.0})


def test_receivers_that_never_answer_hold_no_other_tenants_webhook(hire: Hire, receiver: Receiver) -> None:
    worker = hire()
    with socket.create_server(("0.0.0.0", 0), backlog=512) as tarpit:
        port = tarpit.getsockname()[1]
        hosts = [f"127.0.{number // 200 + 1}.{number % 200 + 1}" for number in range(150)]
        for spec in [accepted(worker, f"http://{host}:{port}/", tenant="acme") for host in hosts]:
            worker.repository.request_cancel(spec.job)
            worker.repository.conclude(spec)
        sender = WebhookSender(worker)
        assert sender.run_once()
        until(lambda: sender._pool._busy.total() == 32)
        single = ended(worker, receiver, tenant="birch")
        began = time.monotonic()
        assert sender.run_once()
        until(lambda: stands(worker, single).state is CallbackState.DELIVERED)
        assert time.monotonic() - began < 5
        assert sender._pool._busy["acme"] == 32, "half of the threads, and all of them wait"
        sender._pool.drop_waiting()
        sender._stop.set()


def test_the_newest_are_looked_at_beside_the_oldest() -> None:
    assert list(_from_both_ends(["old", "b", "c", "d", "new"])) == ["old", "new", "b", "d", "c"]
    assert list(_from_both_ends([])) == []
