"""Tests of ``/trainings`` over the API: what is accepted, what is refused and why, and who sees it."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.kit.states import JobState
from service.store import ObjectStore
from service.trainings.records import TrainingRecords
from tests.workers.trainings.conftest import AUTOENCODER, accept, part_hashes, train
from workers.bulk.execute import RunOutcome
from workers.bulk.worker import BulkWorker


def faults(answer: Any) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {fault["pointer"]: fault["detail"] for fault in answer.json()["errors"]}


def test_a_model_from_nothing_is_a_chain_of_stages(client: TestClient, scenes: str, worker: BulkWorker) -> None:
    body = {
        "system": "siamese-diffusion",
        "dataset": "scenes@1",
        "fit": "tiles",
        "seed": 4,
        "settings": {"tile_px": 16, "size_px": 64, "iterations": 10},
        "parts": {"autoencoder": {"iterations": 5}, "base": {"batch_size": 3}},
    }
    answer = client.post("/trainings", json=body)
    assert answer.status_code == 202, answer.text
    view = answer.json()
    assert view["model"] == "siamese-scenes"
    stages = [(stage["system"], stage["uses"]) for stage in view["stages"]]
    assert stages == [
        ("autoencoder", {}),
        ("base", {"autoencoder": "stage:0"}),
        ("siamese-diffusion", {"base": "stage:1"}),
    ]
    shared = {"fit": "tiles", "tile_px": 16, "seed": 4, "size_px": 64}
    assert view["stages"][0]["options"] == shared | {"iterations": 5, "paper": "siamese"}
    assert view["stages"][1]["options"] == shared | {"batch_size": 3, "paper": "siamese"}
    assert view["stages"][2]["options"] == shared | {"iterations": 10}


def test_superresolution_is_trained_for_the_models_size(client: TestClient, scenes: str) -> None:
    body = {"system": "cosimgen", "dataset": "scenes", "preset": "toy", "parts": {"superres": {"times": 1}}}
    view = client.post("/trainings", json=body).json()
    assert [stage["system"] for stage in view["stages"]] == ["superres", "cosimgen"]
    assert view["stages"][0]["options"] == {"base_px": 32, "times": 1}
    assert view["stages"][1]["uses"] == {"superres": "stage:0"}


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"settings": {"iteration": 5}}, "/settings/iteration", "did you mean 'iterations'"),
        ({"settings": {"iterations": 0}}, "/settings/iterations", "greater than or equal to 1"),
        ({"settings": {"tile_px": 32}}, "/settings", "give fit tiles with them"),
        ({"settings": {"seed": 3}, "seed": 4}, "/settings/seed", "seed itself is 4"),
        ({"settings": {"window": "0,4095"}}, "/settings/window", "became black and white when it was uploaded"),
        ({"preset": "tiny"}, "/settings/preset", "'toy', 'small' or 'paper'"),
        ({"name": "Hills"}, "/name", "lower-case letters"),
        ({"name": "cosimgen-dubai"}, "/name", "a model of all tenants"),
        ({"text_dataset": "scenes"}, "/text_dataset", "leave it out"),
        ({"dataset": None}, "/dataset", "name a stored dataset"),
        ({"base": "training/t7ybr17pesw6kn47yb0"}, "/base", "cosimgen is built on superres"),
        ({"superres": "superres-1"}, "/superres", "not of the form training/{id}"),
        ({"superres": "training/t7ybr17pesw6kn47yb0"}, "/superres", "there is no such training"),
        ({"parts": {"base": {}}}, "/parts/base", "it trains no part first"),
        ({"parts": {"superres": {"times": 9}}}, "/parts/superres/times", "less than or equal to 4"),
        ({"system": "autoencoder", "name": "mine"}, "/name", "a part of models"),
        ({"system": "pathdiff", "dataset": None}, "/mask_dataset", "text_dataset and mask_dataset"),
    ],
)
def test_a_request_that_cannot_be_is_refused_with_its_fault(
    client: TestClient, scenes: str, body: dict[str, Any], pointer: str, words: str
) -> None:
    whole = {"system": "cosimgen", "dataset": "scenes"} | body
    found = faults(client.post("/trainings", json={name: value for name, value in whole.items() if value is not None}))
    assert pointer in found, found
    assert words in found[pointer]


def test_all_faults_are_told_together(client: TestClient, scenes: str) -> None:
    body = {"system": "cosimgen", "dataset": "scenes", "name": "A b", "settings": {"eta": 2, "learning_rate": 0}}
    assert set(faults(client.post("/trainings", json=body))) == {"/name", "/settings/eta", "/settings/learning_rate"}


def test_an_unknown_dataset_is_named(client: TestClient, scenes: str) -> None:
    answer = client.post("/trainings", json={"system": "cosimgen", "dataset": "scens"})
    assert answer.status_code == 404
    assert "did you mean 'scenes'" in answer.json()["detail"]


def test_pause_resume_and_cancel_show_in_the_state(client: TestClient, scenes: str, run_queue: Any) -> None:
    run = client.post("/trainings", json={"system": "cosimgen", "dataset": "scenes"}).json()["id"]
    assert client.post(f"/trainings/{run}/pause").json()["state"] == "paused"
    assert client.post(f"/trainings/{run}/pause").json()["state"] == "paused"
    sent = len(run_queue.sent)
    assert client.post(f"/trainings/{run}/resume").json()["state"] == "queued"
    assert run_queue.sent[sent:] == [run]
    assert client.post(f"/trainings/{run}/cancel").json()["state"] == "cancelled"
    answer = client.post(f"/trainings/{run}/pause")
    assert answer.status_code == 409
    assert "only one that is queued, running or paused can be paused" in answer.json()["detail"]
    assert client.delete(f"/trainings/{run}").status_code == 204
    assert client.get(f"/trainings/{run}").status_code == 404


def test_a_cancelled_training_is_retried_from_its_checkpoint(
    client: TestClient, worker: BulkWorker, scenes: str, store: ObjectStore
) -> None:
    whole = accept(worker, stages=(AUTOENCODER,))
    assert train(worker, whole) is RunOutcome.ENDED
    first = accept(worker, stages=(AUTOENCODER,), budget={"iterations": 6})
    assert train(worker, first) is RunOutcome.ENDED
    # as if it had been cancelled there
    cut = accept(worker, stages=(AUTOENCODER,))
    records, half = TrainingRecords(store, cut), TrainingRecords(store, first).last()
    assert half is not None
    records.write_checkpoint(half.model_copy(update={"run": cut}))
    assert client.post(f"/trainings/{cut}/retry").status_code == 409
    worker.runs.end(worker.runs.read_spec(cut), JobState.CANCELLED)
    answer = client.post(f"/trainings/{cut}/retry")
    assert answer.status_code == 202, answer.text
    again = answer.json()["id"]
    assert train(worker, again) is RunOutcome.ENDED
    assert TrainingRecords(store, again).positions()[0] > (0, 5)
    assert part_hashes(store, again) == part_hashes(store, whole)
