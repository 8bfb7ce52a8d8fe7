"""Plans of hostile datasets are made outside the API's process, within limits."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from service.augmentations import planning
from service.sandbox.limits import SandboxLimits
from tests.service.api.support import card as a_card
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from workers.bulk.execute import RunOutcome

REQUEST = {"dataset": "tiles", "count": 4, "dry_run": True, "seed": 3}


@pytest.fixture
def tiles(client: TestClient, run_queue: RecordingRunQueue, execute: Callable[[str], RunOutcome]) -> None:
    send(client, dataset_tar(), "tiles")
    assert execute(run_queue.sent[-1]) is RunOutcome.ENDED


def plan(client: TestClient) -> tuple[int, dict[str, object]]:
    card = a_card()
    classes = {"ground": card["classes"][1]["name"], "water": None, "house": None}
    answer = client.post("/augmentations", json={**REQUEST, "model": card["name"], "class_map": classes})
    return answer.status_code, answer.json()


def test_a_plan_that_takes_too_much_memory_is_refused_with_a_remedy(
    client: TestClient, tiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(memory_bytes: int, **limits: float) -> SandboxLimits:
        return SandboxLimits(96 << 20, cpu_s=20, timeout_s=20)

    monkeypatch.setattr(planning, "SandboxLimits", small)
    status, body = plan(client)
    assert status == 422
    assert "the plan of 6 items cannot be made" in str(body["detail"])
    assert "name fewer of them with 'splits', or divide the dataset" in str(body["detail"])


def test_a_plan_that_takes_too_long_is_refused(
    client: TestClient, tiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(memory_bytes: int, **limits: float) -> SandboxLimits:
        return SandboxLimits(memory_bytes, cpu_s=20, timeout_s=0)

    monkeypatch.setattr(planning, "SandboxLimits", short)
    status, body = plan(client)
    assert status == 422
    assert "cannot be made (it takes more than 0 s)" in str(body["detail"])


def test_a_plan_costs_the_api_no_memory(client: TestClient, tiles: None) -> None:
    assert plan(client)[0] == 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        plan(client)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
