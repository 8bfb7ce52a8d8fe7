"""Tests of chains: stages that build on each other, parts of other trainings, and models that are registered."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.kit.states import JobState
from service.store import ObjectStore
from service.trainings.records import TrainingRecords
from tests.workers.bulk.conftest import dataset_tar, send
from tests.workers.trainings.conftest import AUTOENCODER, accept, part_hashes, train
from workers.bulk.execute import RunOutcome
from workers.bulk.worker import BulkWorker

TINY = {"iterations": 3, "batch_size": 2, "warmup": 0, "precision": "no", "log_every": 1, "repeat_below": 0.0}


@pytest.fixture
def captioned(client: TestClient, execute: Callable[[str], RunOutcome], run_queue: Any) -> str:
    """A stored dataset of twelve items with captions, ``told@1``."""
    out, plain_data = io.BytesIO(), io.BytesIO(dataset_tar(12))
    with tarfile.open(fileobj=plain_data) as plain, tarfile.open(fileobj=out, mode="w") as tar:
        for member in plain.getmembers():
            tar.addfile(member, plain.extractfile(member))
        lines = [json.dumps({"stem": f"scene{n}", "text": f"a scene with {n % 3} houses"}) for n in range(12)]
        info = tarfile.TarInfo("set/captions.jsonl")
        info.size = len("\n".join(lines).encode())
        tar.addfile(info, io.BytesIO("\n".join(lines).encode()))
    send(client, out.getvalue(), name="told")
    assert execute(run_queue.sent[-1]) is RunOutcome.ENDED
    return "told@1"


def chain(dataset: str) -> list[dict[str, Any]]:
    """An autoencoder and the base on it."""
    first = AUTOENCODER | {"data": (dataset,), "options": AUTOENCODER["options"] | {"iterations": 3}}  # type: ignore[operator]
    return [first, {"system": "base", "data": (dataset,), "uses": {"autoencoder": "stage:0"}, "options": TINY}]


def test_a_base_is_trained_on_the_autoencoder_before_it(worker: BulkWorker, captioned: str, store: ObjectStore) -> None:
    run = accept(worker, stages=chain(captioned))
    assert train(worker, run) is RunOutcome.ENDED
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert (summary.state, summary.done, summary.reason) == (JobState.SUCCEEDED, 6, None)
    records = TrainingRecords(store, run)
    first, second = records.stages()
    assert first.seconds <= second.seconds
    about = json.loads(store.get(second.files["base.json"].key))
    assert about["iterations"] == 3
    assert len(about["data"]) == 2

    # the part of one training is used by another, of the same tenant alone
    again = chain(captioned)[1]
    alone = accept(worker, stages=(chain(captioned)[0],))
    train(worker, alone)
    good = accept(worker, stages=(again | {"uses": {"autoencoder": f"training/{alone}"}},))
    train(worker, good)
    assert part_hashes(store, good) == part_hashes(store, run, 1)
    other = accept(worker, "others", stages=(again | {"uses": {"autoencoder": f"training/{alone}"}},))
    train(worker, other)
    ended = worker.runs.read_summary(other)
    assert ended is not None
    assert ended.state is JobState.FAILED
    assert f"training/{alone} has no part that can be used" in str(ended.reason)


def test_a_budget_that_ends_before_the_last_stage_gives_nothing(worker: BulkWorker, captioned: str) -> None:
    run = accept(worker, stages=chain(captioned), budget={"iterations": 2})
    train(worker, run)
    summary = worker.runs.read_summary(run)
    assert summary is not None
    assert summary.state is JobState.FAILED
    assert "the budget of 2 iterations was spent before stage 1 (base), so there is no model" in str(summary.reason)
