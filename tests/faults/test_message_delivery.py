"""Tests of lost and repeated messages, and of an API that dies between storing a job and queueing it."""

from __future__ import annotations

import httpx
import pytest

from service.kit.ids import is_job_id
from tests.faults.checker import Reference
from tests.faults.points import AFTER_SPEC, ProcessFault
from tests.faults.rig import Rig
from tests.waiting import until


def test_a_lost_message_is_sent_again(rig: Rig, reference: Reference) -> None:
    spec = rig.accept(count=6)
    assert rig.redis.rpop("generate") is not None
    rig.worker()
    rig.check(spec, reference)


def test_a_message_delivered_five_times_to_three_workers_is_executed_once(rig: Rig, reference: Reference) -> None:
    spec = rig.accept(count=2, send=0)
    rig.send(spec, *[0] * 5)
    workers = [rig.worker() for _ in range(3)]
    rig.check(spec, reference)
    until(lambda: sum(worker.log_text.count("chunk=0 ") for worker in workers) >= 5)
    assert sum(worker.log_text.count("chunk=0 recorded") for worker in workers) == 1


def test_an_api_killed_between_spec_and_queue_loses_no_job(rig: Rig, reference: Reference) -> None:
    api, url = rig.api(ProcessFault(AFTER_SPEC))
    rig.worker()
    request = {"model": "tiny", "classes": ["land"], "count": 3, "seed": 11, "steps": 4, "guidance_scale": 2.0}
    headers = {"Idempotency-Key": "only-once"}
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/generate", json=request, headers=headers, trust_env=False)
    until(lambda: not api.alive)
    assert rig.redis.llen("generate") == 0
    [job] = [name for name in rig.store.list_folders("jobs/") if is_job_id(name)]
    spec = rig.repository.read_spec(job)
    rig.check(spec, reference)
    # the client, which got no answer, repeats the request and gets the same job
    _, url = rig.api()
    again = httpx.post(f"{url}/generate", json=request, headers=headers, trust_env=False)
    assert again.json()["id"] == job
