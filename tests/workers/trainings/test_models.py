"""Tests of trainings of models: from a request to a registered model that makes twins."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.registry.catalogue import Catalogue
from service.registry.versions import reserved_for
from service.store import ObjectStore
from service.trainings.records import TrainingRecords
from tests.workers.trainings.conftest import train
from workers.bulk.execute import RunOutcome
from workers.bulk.worker import BulkWorker

SETTINGS = {"iterations": 6, "batch_size": 4, "precision": "no", "log_every": 2, "checkpoint_every": 4}
BODY: dict[str, Any] = {
    "system": "cosimgen",
    "dataset": "scenes",
    "preset": "toy",
    "name": "hills",
    "settings": SETTINGS | {"alignment_iterations": 2, "presence_margin": 1.0},
}


def test_a_model_is_trained_registered_and_found(
    client: TestClient, worker: BulkWorker, scenes: str, store: ObjectStore, run_queue: Any
) -> None:
    answer = client.post("/trainings", json=BODY, headers={"Idempotency-Key": "one"})
    assert answer.status_code == 202, answer.text
    view = answer.json()
    assert (view["state"], view["system"], view["model"]) == ("queued", "cosimgen", "hills")
    assert client.post("/trainings", json=BODY, headers={"Idempotency-Key": "one"}).json()["id"] == view["id"]
    run = view["id"]
    assert run_queue.sent[-1] == run
    assert train(worker, run) is RunOutcome.ENDED
    view = client.get(f"/trainings/{run}").json()
    assert (view["state"], view["done"], view["total"]) == ("succeeded", 6, 6), view
    assert (view["model"], view["candidate"]) == ("hills@1.0.0", False)
    assert [iteration for iteration, _ in view["stages"][0]["series"]["diffusion"]] == [2, 4, 6]
    assert view["training_seconds"] == view["device_seconds"] > 0
    card = Catalogue(store).resolve("hills", tenant="default")
    assert card.version == "1.0.0"
    history = card.training["service"]
    assert history["run"] == run
    assert set(history["datasets"]) == {"scenes@1"}
    assert len(history["datasets"]["scenes@1"]) == 64
    assert card.licence == "CC0-1.0"
    page = client.get(f"/trainings/{run}/checkpoints").json()
    assert [entry["iteration"] for entry in page["checkpoints"]][-1] == 6
    assert page["checkpoints"][-1]["kept"]
    assert client.get(page["checkpoints"][-1]["samples"]).content.startswith(b"\x89PNG")
    # the next training of that name makes the next version
    again = client.post("/trainings", json=BODY | {"seed": 3}).json()["id"]
    assert train(worker, again) is RunOutcome.ENDED
    assert client.get(f"/trainings/{again}").json()["model"] == "hills@1.1.0"
    assert reserved_for(store, "default", "hills", "1.1.0") == again


def test_a_model_below_its_rule_stays_a_candidate(client: TestClient, worker: BulkWorker, scenes: str) -> None:
    run = client.post("/trainings", json=BODY | {"promote_if": {"by.classes.ppv": 0.9}}).json()["id"]
    assert train(worker, run) is RunOutcome.ENDED
    view = client.get(f"/trainings/{run}").json()
    assert (view["state"], view["candidate"]) == ("succeeded", True)
    assert view["reason"] == ("it stays a candidate: by.classes.ppv was not measured, and is to be 0.9 at least")
    assert client.get("/models/hills").status_code == 404
    assert client.get("/models/hills@1.0.0").status_code == 200


def test_a_registered_model_whose_record_was_lost_is_not_registered_again(
    client: TestClient, worker: BulkWorker, scenes: str, store: ObjectStore
) -> None:
    run = client.post("/trainings", json=BODY).json()["id"]
    write, calls = TrainingRecords.write_stage, []

    def die_first(records: TrainingRecords, record: Any) -> Any:
        calls.append(record.model)
        if len(calls) == 1:
            raise OSError("the worker died here")
        return write(records, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRecords, "write_stage", die_first)
        assert train(worker, run) is RunOutcome.FAILED
        assert train(worker, run) is RunOutcome.ENDED
    assert calls == ["hills@1.0.0", "hills@1.0.0"]
    assert client.get("/models/hills").json()["versions"] == ["1.0.0"]
