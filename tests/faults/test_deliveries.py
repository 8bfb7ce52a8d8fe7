"""Messages that are lost or come too often, and an API that dies between what it promised and what it sent."""

from __future__ import annotations

import httpx
import pytest

from service.kit.ids import is_job_id
from tests.faults.checker import Reference
from tests.faults.ground import Ground
from tests.faults.points import AFTER_SPEC, Fault
from tests.waiting import until


def test_a_task_popped_from_the_queue_and_dropped_is_sent_again(ground: Ground, reference: Reference) -> None:
    spec = ground.accept(count=6)
    assert ground.redis.rpop("generate") is not None
    ground.worker()
    ground.check(spec, reference)


def test_a_task_delivered_five_times_at_once_to_three_workers_is_done_once(
    ground: Ground, reference: Reference
) -> None:
    spec = ground.accept(count=2, send=0)
    ground.send(spec, *[0] * 5)
    workers = [ground.worker() for _ in range(3)]
    ground.check(spec, reference)
    until(lambda: sum(worker.said.count("chunk=0 ") for worker in workers) >= 5)
    assert sum(worker.said.count("chunk=0 recorded") for worker in workers) == 1


def test_an_api_killed_between_spec_and_queue_has_promised_nothing_it_does_not_keep(
    ground: Ground, reference: Reference
) -> None:
    api, url = ground.api(Fault(AFTER_SPEC))
    ground.worker()
    request = {"model": "tiny", "classes": ["land"], "count": 3, "seed": 11, "steps": 4, "guidance_scale": 2.0}
    with httpx.Client(base_url=url, trust_env=False, headers={"Idempotency-Key": "only-once"}) as client:
        with pytest.raises(httpx.TransportError):
            client.post("/generate", json=request)
    until(lambda: not api.alive)
    assert ground.redis.llen("generate") == 0
    [job] = [name for name in ground.store.list_folders("jobs/") if is_job_id(name)]
    spec = ground.repository.read_spec(job)
    ground.check(spec, reference)
    # who asks again, as told by nobody, gets the same job
    _, url = ground.api()
    again = httpx.post(f"{url}/generate", json=request, headers={"Idempotency-Key": "only-once"}, trust_env=False)
    assert again.json()["id"] == job
