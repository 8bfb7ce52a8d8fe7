"""Augmentations through both clients, against a stub of the API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.augmentations.plan_values import PlanShares
from service.client import PlanInfo
from service.errors import InvalidRequest
from tests.service.client.both import BothClients
from tests.service.client.stub import API, PLAN, Stub


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def client(stub: Stub, make_client: BothClients) -> Any:
    return make_client(API, "tws_key", transport=stub.transport(), retry_timeout_s=5.0)


def test_a_dataset_is_extended_by_a_plan(client: Any, stub: Stub) -> None:
    dataset = client.dataset("tiles")
    augmentation = client.augment(
        dataset=dataset, model="aerial", ratio=2.0, balance="even", masks={"flip": True}, seed=None
    )
    request = stub.sent("POST", "/augmentations")[0]
    expected = {"dataset": "tiles@3", "model": "aerial", "ratio": 2.0, "balance": "even", "masks": {"flip": True}}
    assert json.loads(request.content) == expected
    assert len(request.headers["idempotency-key"]) == 36
    assert augmentation.wait().state == "succeeded"
    assert augmentation.source == {"augmentation": "a7ybr17pesw6kn47yb0"}
    assert (augmentation.info.tried, augmentation.info.rejected) == (6, {"low_confidence": 2})
    assert augmentation.info.plan == PlanShares.model_validate(PLAN)
    assert augmentation.info.achieved == {"water": 0.5}


def test_numbers_that_json_cannot_express_are_not_sent(client: Any, stub: Stub) -> None:
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match="not finite"):
            client.augment(dataset="tiles", model="aerial", ratio=wrong)
    assert stub.sent("POST", "/augmentations") == []


def test_a_dry_run_returns_the_plan_and_creates_nothing(client: Any, stub: Stub) -> None:
    plan = client.augment(dataset="tiles", model="aerial", count=4, dry_run=True)
    assert isinstance(plan, PlanInfo)
    assert (plan.model, plan.dataset, plan.seed, plan.parameters) == ("aerial@1.0.0", "tiles@3", 5, {"steps": 50})
    assert plan.plan == PlanShares.model_validate(PLAN)
    assert plan.picture == "iVBORw0KGgo="
    request = stub.sent("POST", "/augmentations")[0]
    assert json.loads(request.content)["dry_run"] is True
    assert "idempotency-key" not in request.headers


def test_accepted_twins_are_listed_over_all_pages(client: Any) -> None:
    samples = list(client.augmentation("a7ybr17pesw6kn47yb0").samples())
    assert [(sample.job, sample.index) for sample in samples] == [("j7ybr17pesw6kn47yb0", index) for index in range(4)]


@pytest.mark.parametrize("with_dataset", [True, False])
def test_it_is_exported_together_with_its_dataset_or_alone(client: Any, with_dataset: bool) -> None:
    export = client.augment(dataset="tiles", model="aerial", count=4, wait=True).export(
        format="coco", with_dataset=with_dataset, seed=3
    )
    alone = [{"augmentation": "a7ybr17pesw6kn47yb0"}]
    assert export.info.request == {
        "sources": [{"dataset": "tiles@3"}, *alone] if with_dataset else alone,
        "format": "coco",
        "seed": 3,
    }


def test_augmentations_are_listed_cancelled_and_deleted(client: Any, stub: Stub) -> None:
    (one,) = client.augmentations()
    assert one.cancel().id == one.id
    assert one.delete() is True
    assert [(request.method, request.url.path) for request in stub.requests[-2:]] == [
        ("POST", "/augmentations/a7ybr17pesw6kn47yb0/cancel"),
        ("DELETE", "/augmentations/a7ybr17pesw6kn47yb0"),
    ]
