"""Tests of augmentation sets through API and bulk worker, with a fake that paints the jobs' twins."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.augmentations.plan_report import report
from service.augmentations.rounds import Rounds
from service.datasets.components import connected
from service.errors import ModelConflict
from service.jobs.repository import JobRepository
from service.jobs.sample_item import MadeTwin
from service.jobs.spec import ChunkRecord, ItemClass, JobSpec
from service.kit.png import encode_image
from service.kit.seeds import sample_seed
from service.registry.aliases import Aliases
from service.registry.catalogue import Catalogue
from service.registry.deletion import delete_version
from service.registry.shares import Shares
from service.settings import Settings
from service.store import ObjectStore
from tests.service.api.support import TEXT_AND_MASK, NotingQueue, mask_card, register
from tests.service.registry.small_models import add
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from tests.workers.bulk.test_exports import NAMES, files, unpacked
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.handlers import handlers
from workers.bulk.worker import BulkWorker, open_bulk_worker

Execute = Callable[[str], RunOutcome]
Confidence = Callable[[int], float]


def paint(repository: JobRepository, spec: JobSpec, confident: Confidence = lambda seed: 0.95) -> None:
    """Makes the twins of a job: an image in the colours of the given mask, with noise of the seed.

    Without a given mask, the mask is all of the first requested class.
    """
    classes = Catalogue(repository.store).pinned(spec.model_key).card.classes
    colours = np.array([entry.colour for entry in classes] + [(0, 0, 0)] * (256 - len(classes)), dtype=np.uint8)
    names = [entry.name for entry in classes]
    now = datetime.now(UTC)
    for chunk in range(spec.chunks):
        items = []
        for index in spec.chunk_range(chunk):
            seed = sample_seed(spec.seed, index)
            number = spec.mask_number(index)
            if number is None:
                mask = np.full((64, 64), names.index((spec.classes or ("water",))[0]), dtype=np.uint8)
            else:
                mask = np.array(Image.open(io.BytesIO(repository.store.get(spec.input_key(number)))))
            noise = np.random.default_rng(seed).integers(0, 90, (*mask.shape, 3), dtype=np.uint8)
            image_file = encode_image(colours[mask] // 2 + noise, {})
            out = io.BytesIO()
            Image.fromarray(mask).save(out, "PNG")
            mask_file = out.getvalue()
            found, counts = np.unique(mask, return_counts=True)
            classes = tuple(
                ItemClass(name=names[value], index=int(value), share=count / mask.size)
                for value, count in zip(found.tolist(), counts.tolist(), strict=True)
                if value != 255 and count / mask.size >= 0.005
            )
            drawn = (None, None) if number is not None else (confident(seed), 0.9)
            twin = MadeTwin(index, seed, image_file, mask_file, classes, *drawn)
            items.append(twin.store(repository.store, spec.job))
        repository.chunks.write(
            ChunkRecord(
                job=spec.job,
                chunk=chunk,
                items=tuple(items),
                worker="test",
                epoch=1,
                batch_shape=(4,),
                dtype="float32",
                device="cpu",
                build={},
                attempt=1,
                started_at=now,
                finished_at=now,
            )
        )
    repository.conclude(spec)


@pytest.fixture
def scenes(client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore) -> str:
    """A dataset of 12 items, and a model of the same classes that follows masks."""
    register(store, mask_card())
    found = send(client, dataset_tar(12, names=NAMES))["id"]
    execute(run_queue.sent[-1])
    return str(found)


def execute_until_ended(
    client: TestClient, execute: Execute, worker: BulkWorker, run: str, confident: Confidence = lambda seed: 0.95
) -> dict[str, Any]:
    """Executes a set until it ends, with painted jobs; returns its view."""
    for _ in range(60):
        if execute(run) is RunOutcome.ENDED:
            return client.get(f"/augmentations/{run}").json()
        for job in Rounds(worker.store, run).jobs():
            if worker.repository.read_summary(job) is None:
                paint(worker.repository, worker.repository.read_spec(job), confident)
    raise AssertionError("it does not end")


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/augmentations", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_a_dry_run_returns_the_plan_and_stores_nothing(
    client: TestClient, scenes: str, store: ObjectStore, run_queue: RecordingRunQueue
) -> None:
    before, sent = {info.key for info in store.list("")}, list(run_queue.sent)
    answer = client.post(
        "/augmentations",
        json={"dataset": "scenes", "model": "tissue", "ratio": 3, "balance": {"water": 0.18}, "dry_run": True},
    )
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["dataset"], plan["model"], plan["plan"]["count"], plan["plan"]["items"]) == (
        scenes,
        "tissue@1.0.0",
        36,
        12,
    )
    water = next(entry for entry in plan["plan"]["classes"] if entry["name"] == "water")
    assert water["target"] == 0.18
    assert abs(water["planned"] - 0.18) < 0.01
    assert water["met"]
    assert Image.open(io.BytesIO(base64.b64decode(plan["picture"]))).format == "PNG"
    assert {info.key for info in store.list("")} == before
    assert run_queue.sent == sent


def test_a_set_reaches_the_requested_count_and_shares(
    client: TestClient, execute: Execute, worker: BulkWorker, scenes: str, run_queue: RecordingRunQueue
) -> None:
    asked = ask(
        client,
        dataset="scenes",
        model="tissue",
        count=192,
        balance={"water": 0.18},
        seed=5,
        name="more water",
        splits=None,
    )
    assert (asked["state"], asked["count"], asked["name"], asked["total"]) == ("queued", 192, "more water", 192)
    view = execute_until_ended(client, execute, worker, asked["id"])
    assert (view["state"], view["done"], view["tried"], view["rejected"]) == ("succeeded", 192, 192, {})
    assert abs(view["achieved"]["water"] - 0.18) <= 0.05 * 0.18
    # what is told is what the masks hold
    page = client.get(view["links"]["samples"], params={"limit": 500}).json()
    assert len(page["samples"]) == 192
    shares = np.zeros(4)
    for sample in page["samples"]:
        mask = np.array(Image.open(io.BytesIO(client.get(sample["mask"]["url"]).content)))
        shares += np.bincount(mask.reshape(-1), minlength=4)[:4] / mask.size
    assert np.allclose(shares / 192, [view["achieved"][name] for name in NAMES], atol=1e-5)
    assert {sample["made_from"]["dataset"] for sample in page["samples"]} == {scenes}
    assert any(sample["made_from"]["masks"] == "transformed" for sample in page["samples"])


def test_rules_on_objects_are_counted_in_the_result(
    client: TestClient, execute: Execute, worker: BulkWorker, scenes: str
) -> None:
    rules = {"water": {"count": [2, 4], "size": [8, 20]}, "vegetation": {"count": 0}}
    body = {"dataset": "scenes", "model": "tissue", "count": 12, "seed": 3, "objects": rules}
    plan = client.post("/augmentations", json={**body, "dry_run": True}).json()["plan"]
    assert [(one["name"], one["rule"], one["masks"]) for one in plan["objects"]] == [
        ("water", "2 to 4 objects of 8 to 20 px", 24),
        ("vegetation", "0 objects", 24),
    ]
    view = execute_until_ended(client, execute, worker, ask(client, **body)["id"])
    assert view["state"] == "succeeded"
    assert view["objects"]["vegetation"] == {"met": 12}
    assert sum(view["objects"]["water"].values()) == 12
    missed = 0
    for sample in client.get(view["links"]["samples"]).json()["samples"]:
        mask = np.array(Image.open(io.BytesIO(client.get(sample["mask"]["url"]).content)))
        assert 2 not in mask
        said = sample["made_from"].get("objects_missed", {})
        missed += bool(said)
        regions = connected(mask, {0, 2, 3, 255})
        assert said or 2 <= len(regions) <= 4
    assert view["objects"]["water"].get("met", 0) == 12 - missed
    refused = client.post("/augmentations", json={**body, "objects": {"water": {"count": [4, 2]}}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/objects/water/count"


def test_the_same_seed_gives_the_same_set_wherever_a_worker_is_killed(
    client: TestClient,
    hire: Callable[..., BulkWorker],
    worker: BulkWorker,
    scenes: str,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from service.errors import StoreUnavailable

    body = {"dataset": "scenes", "model": "tissue", "count": 10, "seed": 9, "balance": "even"}
    kinds = handlers()

    def twins(run: str) -> list[tuple[str, str]]:
        page = client.get(f"/augmentations/{run}/samples", params={"limit": 500}).json()
        return [(sample["image"]["sha256"], json.dumps(sample["made_from"])) for sample in page["samples"]]

    first = ask(client, **body)["id"]
    execute_until_ended(client, lambda run: execute_run(worker, run, kinds), worker, first)
    second = ask(client, **body)["id"]
    puts = {"left": 0}

    def failing(self: Any, key: str, *given: Any, **options: Any) -> Any:
        if f"/{second}/rounds/" in key or key.startswith(("uploads/", "jobs/")):
            puts["left"] -= 1
            if puts["left"] < 0:
                raise StoreUnavailable("killed here")
        return real(self, key, *given, **options)

    real = type(store).put
    for attempt in range(200):
        with monkeypatch.context() as patched:
            puts["left"] = attempt  # each time a little further
            patched.setattr(type(store), "put", failing)
            outcome = execute_run(hire(), second, kinds)
        if outcome is RunOutcome.ENDED:
            break
        for job in Rounds(store, second).jobs():
            if worker.repository.read_summary(job) is None:
                paint(worker.repository, worker.repository.read_spec(job))
    assert attempt > 5
    assert twins(second) == twins(first)
    assert len(twins(first)) == 10
    jobs = [job["id"] for job in client.get("/jobs", params={"limit": 100}).json()["jobs"]]
    of_sets = [*Rounds(store, first).jobs(), *Rounds(store, second).jobs()]
    assert sorted(jobs) == sorted(of_sets), "a job was asked for twice"


def test_rejected_twins_are_replaced_until_the_budget_is_spent(
    client: TestClient, execute: Execute, worker: BulkWorker, scenes: str
) -> None:
    body = {"dataset": "scenes", "model": "aerial", "count": 12, "seed": 1, "acceptance": {"min_confident_share": 0.9}}
    half = execute_until_ended(
        client, execute, worker, ask(client, **body, budget=4.0)["id"], lambda seed: 0.95 if seed % 2 else 0.5
    )
    assert (half["state"], half["done"]) == ("succeeded", 12)
    assert half["rejected"]["low_confidence"] >= 4
    assert half["tried"] <= 48
    none = execute_until_ended(client, execute, worker, ask(client, **body, budget=1.5)["id"], lambda seed: 0.5)
    assert (none["state"], none["done"], none["tried"], none["rejected"]) == ("failed", 0, 18, {"low_confidence": 18})
    some = execute_until_ended(
        client, execute, worker, ask(client, **body, budget=1.0)["id"], lambda seed: 0.95 if seed % 3 else 0.5
    )
    assert some["state"] == "partial"
    assert 0 < some["done"] < 12
    assert some["tried"] == 12
    assert "all 12 tries are spent" in some["reason"]


def test_a_tenants_limit_makes_rounds_smaller_and_never_blocks_a_set(
    client: TestClient, scenes: str, settings: Settings
) -> None:
    small = open_bulk_worker(
        settings.model_copy(update={"limit_queued_samples": 6}), queue=RecordingRunQueue(), chunks=NotingQueue()
    )
    kinds = handlers()
    run = ask(client, dataset="scenes", model="tissue", count=10, seed=2)["id"]
    view = execute_until_ended(client, lambda each: execute_run(small, each, kinds), small, run)
    assert (view["state"], view["done"]) == ("succeeded", 10)
    sizes = [small.repository.read_spec(job).count for job in view["jobs"]]
    assert sum(sizes) == 10
    assert max(sizes) <= 3
    small.close()


def test_near_duplicates_are_rejected(client: TestClient, execute: Execute, worker: BulkWorker, scenes: str) -> None:
    body = {"dataset": "scenes", "model": "aerial", "count": 4, "seed": 1, "budget": 3.0}
    view = execute_until_ended(
        client, execute, worker, ask(client, **body, acceptance={"no_near_duplicates": 64})["id"]
    )
    assert view["state"] in ("succeeded", "partial")
    loose = execute_until_ended(client, execute, worker, ask(client, **body)["id"])
    assert (loose["done"], loose["tried"]) == (4, 4)


def test_a_set_and_its_dataset_are_exported_with_each_mask_in_one_split(
    client: TestClient, execute: Execute, worker: BulkWorker, scenes: str, run_queue: RecordingRunQueue
) -> None:
    run = ask(client, dataset="scenes", model="tissue", count=40, seed=2)["id"]
    execute_until_ended(client, execute, worker, run)
    body = {
        "sources": [{"dataset": scenes}, {"augmentation": run}],
        "format": "folders",
        "splits": {"train": 0.5, "test": 0.5},
    }
    export = client.post("/exports", json=body).json()
    execute(run_queue.sent[-1])
    view = client.get(f"/exports/{export['id']}").json()
    assert view["state"] == "succeeded"
    assert view["items"] == {"real": 12, "synthetic": 40}
    lines = [json.loads(line) for line in unpacked(files(client, view))["manifest.jsonl"].splitlines()]
    sides: dict[str, set[str]] = {}
    for line in lines:
        sides.setdefault(line["source_mask"], set()).add(line["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert {line["split"] for line in lines} == {"train", "test"}
    real = {line["source_mask"]: line["split"] for line in lines if line["source"] == "real"}
    assert {line["source_mask"] for line in lines if line["source"] == "synthetic"} <= set(real)
    assert all(line["metadata"]["augmentation"] == run for line in lines if line["source"] == "synthetic")


def test_a_cancelled_set_keeps_accepted_twins_and_stops_its_jobs(
    client: TestClient, execute: Execute, worker: BulkWorker, scenes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import workers.bulk.augment as module

    monkeypatch.setattr(module, "MAX_ROUND_SAMPLES", 4)
    run = ask(client, dataset="scenes", model="tissue", count=40, seed=2)["id"]
    execute(run)
    second, first = Rounds(worker.store, run).jobs()
    paint(worker.repository, worker.repository.read_spec(first))
    assert execute(run) is RunOutcome.LATER
    assert client.get(f"/augmentations/{run}").json()["tried"] == 4
    assert client.post(f"/augmentations/{run}/cancel").json()["state"] == "cancelling"
    assert execute(run) is RunOutcome.CANCELLED
    view = client.get(f"/augmentations/{run}").json()
    assert (view["state"], view["done"]) == ("cancelled", 4)
    assert client.get(f"/jobs/{second}").json()["state"] == "cancelled"
    assert len(client.get(f"/augmentations/{run}/samples").json()["samples"]) == 4
    assert client.post("/exports", json={"sources": [{"augmentation": run}], "format": "coco"}).status_code == 202


def test_a_deleted_set_deletes_its_jobs(
    client: TestClient, execute: Execute, worker: BulkWorker, scenes: str, store: ObjectStore
) -> None:
    from workers.bulk.sweeper import RunSweeper

    run = ask(client, dataset="scenes", model="tissue", count=4, seed=2)["id"]
    execute_until_ended(client, execute, worker, run)
    [job] = Rounds(store, run).jobs()
    assert client.delete(f"/augmentations/{run}").status_code == 204
    assert client.get(f"/augmentations/{run}").status_code == 404
    sweeper = RunSweeper(worker)
    sweeper.run_once()
    sweeper.run_once()
    assert client.get(f"/jobs/{job}").status_code == 404
    assert list(store.list(f"augmentations/{run}/")) == []


def test_concurrent_requests_under_one_key_show_the_stored_plan(
    client: TestClient, worker: BulkWorker, scenes: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.augmentations.stored import reopen
    from service.augmentations.work import AugmentationWork
    from service.errors import StoreUnavailable

    body = {"dataset": "scenes", "model": "tissue", "count": 30, "balance": "even"}
    calls: list[str] = []

    def both_at_once(self: Any, key: str, *given: Any, **options: Any) -> Any:
        if key.endswith("/spec.json"):
            calls.append(key)
            if len(calls) > 1:
                raise StoreUnavailable("the second does not get through")
            assert client.post("/augmentations", json=body, headers={"Idempotency-Key": "one"}).status_code == 503
        return real(self, key, *given, **options)

    real = type(store).put
    with monkeypatch.context() as patched:
        patched.setattr(type(store), "put", both_at_once)
        answer = client.post("/augmentations", json=body, headers={"Idempotency-Key": "one"})
    assert answer.status_code == 202
    assert len(set(calls)) == 1
    view = client.get(f"/augmentations/{answer.json()['id']}").json()
    work = AugmentationWork.model_validate(worker.runs.read_spec(view["id"]).work)
    made = reopen(work, store, worker.catalogue, worker.settings)
    assert view["seed"] == work.seed
    assert view["plan"] == report(made.plan).model_dump(mode="json")
    dry = client.post("/augmentations", json={**body, "seed": work.seed, "dry_run": True}).json()
    assert client.get(view["links"]["preview"]).content == base64.b64decode(dry["picture"])


@pytest.mark.parametrize("deleted", [False, True], ids=["cancelled", "deleted"])
def test_jobs_of_an_interrupted_round_end_with_the_set(
    client: TestClient,
    execute: Execute,
    worker: BulkWorker,
    scenes: str,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    deleted: bool,
) -> None:
    from service.errors import StoreUnavailable
    from workers.bulk.sweeper import RunSweeper

    def failing(self: Any, key: str, *given: Any, **options: Any) -> Any:
        if key.endswith("/jobs.json"):
            raise StoreUnavailable("broken off here")
        return real(self, key, *given, **options)

    run = ask(client, dataset="scenes", model="tissue", count=12, seed=2, prompt="tissue with {classes}")["id"]
    real = type(store).put
    with monkeypatch.context() as patched:
        patched.setattr(type(store), "put", failing)
        assert execute(run) is RunOutcome.FAILED
    jobs = [job["id"] for job in client.get("/jobs").json()["jobs"]]
    assert Rounds(store, run).jobs() == []
    assert len(jobs) > 1
    if deleted:
        assert client.delete(f"/augmentations/{run}").status_code == 204
        sweeper = RunSweeper(worker)
        sweeper.run_once()
        sweeper.run_once()
        assert client.get("/jobs").json()["jobs"] == []
    else:
        client.post(f"/augmentations/{run}/cancel")
        assert execute(run) is RunOutcome.CANCELLED
        assert {client.get(f"/jobs/{job}").json()["state"] for job in jobs} == {"cancelled"}


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"model": "nobody"}, 404, "nobody"),
        ({"dataset": "nothing"}, 404, "nothing"),
        ({"count": None}, 422, "neither is given"),
        ({"ratio": 2.0}, 422, "both are given"),
        ({"balance": {"lake": 0.5}}, 422, "lake"),
        ({"balance": {"water": 1.3}}, 422, "balance.water is 1.3: Input should be less than or equal to 1"),
        ({"masks": {"transforms": ["wobble"]}}, 422, "wobble"),
        ({"prompt": "{secret}"}, 422, "{secret}"),
        ({"splits": ["test"]}, 422, "no item"),
        ({"steps": 100000}, 422, "steps"),
        ({"acceptance": {"min_confident_share": 0.9}}, 422, "min_confident_share"),
    ],
)
def test_impossible_requests_are_refused(
    change: dict[str, Any], status: int, says: str, client: TestClient, scenes: str
) -> None:
    body = {"dataset": "scenes", "model": "tissue", "count": 4, **change}
    answer = client.post("/augmentations", json={name: value for name, value in body.items() if value is not None})
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    # of a member that may be of several kinds, what pydantic calls them is no place in the body
    assert not any("[" in error["pointer"] or "(" in error["pointer"] for error in answer.json().get("errors", []))
    assert client.get("/augmentations").json()["augmentations"] == []


def test_a_set_keeps_the_version_that_its_alias_stood_for_also_after_its_share_ends(
    client: TestClient,
    execute: Execute,
    worker: BulkWorker,
    scenes: str,
    store: ObjectStore,
    tmp_path: Path,
) -> None:
    members = mask_card("x")
    changes = {name: members[name] for name in TEXT_AND_MASK} | {
        name: members[name] for name in ("classes", "palette", "sizes_px", "default_size_px")
    }
    for version in ("1.0.0", "1.1.0"):
        add(store, tmp_path, "ours", version, version.encode(), tenant="acme", changes=changes)
    Aliases(store, "acme").move("ours", "stable", "1.0.0", why=None, by=None)
    Shares(store).add("acme", "ours", "default", by=None)
    asked = ask(client, dataset="scenes", model="acme:ours@stable", count=2, balance={"water": 0.2}, seed=3)
    assert asked["model"] == "acme:ours@1.0.0"
    Aliases(store, "acme").move("ours", "stable", "1.1.0", why=None, by=None)
    Shares(store).revoke("acme", "ours", "default")
    assert client.get("/models/acme:ours").status_code == 404
    with pytest.raises(ModelConflict) as refused:
        delete_version(store, "acme", "ours", "1.0.0", by=None)
    assert refused.value.extra["needed_by"] == [{"kind": "augmentation", "id": None}]
    ended = execute_until_ended(client, execute, worker, asked["id"])
    assert (ended["state"], ended["done"]) == ("succeeded", 2)
    specs = [worker.repository.read_spec(job) for job in ended["jobs"]]
    assert {(spec.model, spec.model_key) for spec in specs} == {("acme:ours@1.0.0", "acme:ours@1.0.0")}
    assert len(client.get(f"/augmentations/{asked['id']}/samples").json()["samples"]) == 2
    delete_version(store, "acme", "ours", "1.0.0", by=None)
