"""Dry runs: data checked from their statistics, stages with their lengths, and estimates from probes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.client import Twinset
from service.kit.validation import Faults
from service.runs.repository import RunRepository
from service.store import ObjectStore
from service.trainings.probes import Fingerprints, Probe, find_probes, put_probe
from service.trainings.request import TrainingRequest
from service.trainings.resolve import TrainingResolver
from service.trainings.work import TrainingWork

Stored = Callable[..., str]
GPU = {"device": "NVIDIA H200", "torch": "2.11.0"}
CPU = {"device": "a CPU", "cpu_threads": "2"}
AT = datetime(2026, 12, 1, tzinfo=UTC)


def plan(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/trainings", json={**body, "dry_run": True})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def resolved(store: ObjectStore, **body: Any) -> TrainingWork:
    return TrainingResolver(RunRepository(store), "default").resolve(TrainingRequest.model_validate(body), Faults())


def measure(
    store: ObjectStore, work: TrainingWork, number: int, seconds: float, machine: dict[str, str], **changes: Any
) -> None:
    """Stores a probe of a stage."""
    values = {
        "system": work.stages[number].system,
        "network": Fingerprints(RunRepository(store), "default").of(work, number),
        "machine": machine,
        "device": machine["device"],
        "seconds_per_iteration": seconds,
        "iterations": 20,
        "parameters": 1000,
        "at": AT,
    }
    put_probe(store, Probe(**(values | changes)))


def test_the_plan_has_the_datasets_figures_and_nothing_is_stored(
    client: TestClient, stored: Stored, store: ObjectStore
) -> None:
    ref = stored(items=60, splits={"train": list(range(55)), "test": list(range(55, 60))})
    before = {info.key for info in store.list("")}
    found = plan(client, system="cosimgen", dataset="scenes", name="small-scenes")
    assert {info.key for info in store.list("")} == before
    assert client.get("/trainings").json()["trainings"] == []
    assert (found["system"], found["model"], found["warnings"]) == ("cosimgen", "small-scenes", [])
    (data,) = found["datasets"]
    assert (data["dataset"], data["images"], data["trained_on"]) == (ref, 60, 55)
    assert (data["splits"], data["licence"]) == ({"test": 5, "train": 55}, "CC0-1.0")
    assert (data["image_sizes"], data["with_captions"]) == ({"24 x 16": 60}, None)
    shares = {entry["name"]: (entry["images"], entry["image_share"]) for entry in data["classes"]}
    assert shares == {"ground": (60, 1.0), "water": (60, 1.0), "house": (20, pytest.approx(1 / 3))}
    assert sum(entry["pixel_share"] for entry in data["classes"]) == pytest.approx(1.0)
    (stage,) = found["stages"]
    assert (stage["iterations"], stage["batch_size"], stage["epochs"]) == (20_000, 16, 5818.18)
    assert (found["iterations"], found["estimates"]) == (20_000, [])
    assert found["notes"] == [
        "no worker has measured cosimgen with these options yet, so its time and memory are not known; a training's "
        "first 20 iterations measure it"
    ]


def test_what_the_data_lack_is_warned_of(client: TestClient, stored: Stored) -> None:
    stored("few", 6, captions=3, licence=None, names=("ground", "water", "house", "tree"))
    found = plan(client, system="siamese-diffusion", dataset="few")["warnings"]
    assert found == [
        "few@1 has 6 images to train on; below 50 a model repeats them rather than learning from them: add images",
        "few@1 shows no tree in any mask, so the model cannot make them: add masks that do",
        "few@1 has no test split, so nothing is measured on images that were not trained on: put some images into a "
        "split named test",
        "few@1: 50% of its images lack a caption, which this training reads: add captions.jsonl",
        "few@1 states no licence, so the model's card cannot say what it may be used for: add it",
    ]
    # a system that reads neither masks nor captions lacks neither
    found = plan(client, system="autoencoder", dataset="few", settings={"size_px": 16})["warnings"]
    assert [line.split(",")[0].split(";")[0] for line in found] == [
        "few@1 has 6 images to train on",
        "few@1 has no test split",
        "few@1 states no licence",
    ]
    stored("tested", 6, splits={"test": list(range(6))})
    found = plan(client, system="base", dataset="tested")["warnings"]
    assert found == [
        "tested@1 has no image in a train split, nor one without a split: nothing can be trained on it",
        "tested@1: no image has a caption, which this training reads: add captions.jsonl",
    ]


def test_a_chain_is_planned_stage_by_stage_and_cut_by_its_budget(client: TestClient, stored: Stored) -> None:
    stored("texts", 60, captions=60)
    stored("masks", 60, names=("ground", "cell", "gland"))
    body = {"system": "pathdiff", "text_dataset": "texts", "mask_dataset": "masks"}
    found = plan(client, **body, parts={"autoencoder": {"iterations": 1800, "batch_size": 8}})
    assert [(stage["system"], stage["iterations"], stage["batch_size"]) for stage in found["stages"]] == [
        ("autoencoder", 1800, 8),
        ("base", 20_000, 16),
        ("pathdiff", 6000, 16),
    ]
    assert [stage["datasets"] for stage in found["stages"]] == [["texts@1"], ["texts@1"], ["texts@1", "masks@1"]]
    assert [stage["uses"] for stage in found["stages"]] == [{}, {"autoencoder": "stage:0"}, {"base": "stage:1"}]
    assert found["stages"][2]["epochs"] == 800.0
    # the paper's 60 epochs, in its batches of 72, over 120 images
    paper = plan(client, **body, preset="paper")
    assert [stage["iterations"] for stage in paper["stages"]] == [100_000, 200_000, 100]
    cut = plan(client, **body, budget={"iterations": 25_000})
    assert [stage["iterations"] for stage in cut["stages"]] == [10_000, 15_000, 0]
    assert cut["iterations"] == 25_000


def test_estimates_come_from_machines_that_measured_every_stage(
    client: TestClient, stored: Stored, store: ObjectStore
) -> None:
    stored("texts", 60, captions=60)
    body: dict[str, Any] = {"system": "base", "dataset": "texts", "settings": {"iterations": 1000}}
    body["parts"] = {"autoencoder": {"iterations": 500}}
    work = resolved(store, **body)
    measure(store, work, 0, 0.5, CPU)
    found = plan(client, **body)
    assert found["estimates"] == []
    assert [note.split(" with ")[0] for note in found["notes"]] == ["no worker has measured base"]
    measure(store, work, 1, 0.01, GPU, devices=2, memory_bytes=7 << 30)
    found = plan(client, **body)
    assert (found["estimates"], found["notes"]) == (
        [],
        ["no machine type has measured all stages, so the whole training's time is not known"],
    )
    measure(store, work, 0, 0.02, GPU, devices=2, memory_bytes=3 << 30)
    measure(store, work, 1, 2.0, CPU)
    fast, slow = plan(client, **body)["estimates"]
    assert (fast["device"], fast["devices"], fast["seconds"], fast["device_seconds"]) == ("NVIDIA H200", 2, 20.0, 40.0)
    assert fast["memory_bytes"] == 7 << 30
    assert [(stage["seconds"], stage["parameters"]) for stage in fast["stages"]] == [(10.0, 1000), (10.0, 1000)]
    assert (slow["seconds"], slow["device_seconds"], slow["memory_bytes"]) == (2250.0, 2250.0, None)
    budgeted = plan(client, **body, budget={"device_seconds": 30, "hours": 0.5})["estimates"]
    assert [(one["seconds"], one["device_seconds"]) for one in budgeted] == [(15.0, 30.0), (30.0, 30.0)]


def test_a_probe_stands_for_the_network_and_not_for_its_length(stored: Stored, store: ObjectStore) -> None:
    stored("texts", 60, captions=60)
    prints = Fingerprints(RunRepository(store), "default")

    def of(number: int = -1, **body: Any) -> str:
        work = resolved(store, **{"system": "siamese-diffusion", "dataset": "texts", **body})
        return prints.of(work, number % len(work.stages))

    same = of()
    assert of(settings={"iterations": 5, "learning_rate": 1e-3, "checkpoint_every": 7}, seed=3, name="other") == same
    assert of(settings={"batch_size": 16}) == same  # the preset's
    for other in ({"settings": {"batch_size": 8}}, {"preset": "paper"}, {"settings": {"dhi": False}}):
        assert of(**other) != same
    # it is built on another autoencoder, which it encodes images with
    assert of(parts={"autoencoder": {"size_px": 64}, "base": {"size_px": 64}}, settings={"size_px": 64}) != same
    # a weight that is 0 saves its network; other weights cost the same
    weights = [of(0, parts={"autoencoder": {"perceptual_weight": weight}}) for weight in (0.0, 0.1, 0.2)]
    assert weights[0] != weights[1] == weights[2]


def test_a_later_probe_replaces_an_earlier_one_and_damaged_ones_are_left_out(
    stored: Stored, store: ObjectStore
) -> None:
    stored()
    work = resolved(store, system="cosimgen", dataset="scenes")
    network = Fingerprints(RunRepository(store), "default").of(work, 0)
    measure(store, work, 0, 1.0, GPU)
    measure(store, work, 0, 0.5, GPU)
    measure(store, work, 0, 4.0, CPU)
    found = sorted(probe.seconds_per_iteration for probe in find_probes(store, "cosimgen", network))
    assert found == [0.5, 4.0]
    key = next(info.key for info in store.list("probes/"))
    store.put(key, b"{")
    assert len(list(find_probes(store, "cosimgen", network))) == 1


def test_faults_are_those_of_the_request_itself(client: TestClient, stored: Stored) -> None:
    stored()
    body = {"system": "cosimgen", "dataset": "scenes", "settings": {"iterations": 0, "itertions": 5}}
    dry, real = (client.post("/trainings", json={**body, "dry_run": is_dry}) for is_dry in (True, False))
    assert dry.status_code == real.status_code == 422
    assert dry.json()["errors"] == real.json()["errors"]
    assert [error["pointer"] for error in dry.json()["errors"]] == ["/settings/itertions", "/settings/iterations"]
    missing = client.post("/trainings", json={"system": "cosimgen", "dataset": "scens", "dry_run": True})
    assert missing.status_code == 404
    assert "did you mean 'scenes'?" in missing.json()["detail"]


def test_the_client_plans_with_the_arguments_of_train(client: TestClient, stored: Stored) -> None:
    stored(items=60)

    def forward(request: httpx.Request) -> httpx.Response:
        answer = client.request(request.method, str(request.url), headers=request.headers, content=request.read())
        return httpx.Response(answer.status_code, content=answer.content)

    with Twinset("http://testserver", transport=httpx.MockTransport(forward), retry_timeout_s=1.0) as twinset:
        found = twinset.plan_training(
            system="cosimgen", dataset=twinset.dataset("scenes"), preset="toy", settings={"batch_size": 4}
        )
        assert list(twinset.trainings()) == []
    assert (found.model, found.iterations, found.stages[0].batch_size) == ("cosimgen-scenes", 300, 4)
    assert found.datasets[0].classes[1].name == "water"
