"""Fixtures: a stored dataset, trainings in the store, and workers that train them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.kit.run_kinds import RunKind, new_run_id
from service.runs.spec import RunSpec
from service.settings import Settings
from service.store import ObjectStore
from service.trainings.records import TrainingRecords
from service.trainings.work import TrainingWork
from tests.workers.bulk.conftest import (
    app,
    broker_url,
    chunk_queue,
    client,
    dataset_tar,
    execute,
    hire,
    run_queue,
    send,
    settings,
    store,
    worker,
)
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.worker import BulkWorker
from workers.trainings.handler import training_handler

__all__ = ["app", "broker_url", "chunk_queue", "client", "execute", "hire", "run_queue", "settings", "store", "worker"]

AUTOENCODER = {
    "system": "autoencoder",
    "data": ("scenes@1",),
    "options": {
        "size_px": 16,
        "iterations": 12,
        "batch_size": 2,
        "warmup": 0,
        "perceptual_weight": 0.0,
        "precision": "no",
        "checkpoint_every": 3,
        "sample_every": 6,
        "log_every": 3,
        "seed": 5,
    },
}
"""A stage that trains a part in seconds."""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes compute on one thread: networks this small are slower on several."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def scenes(client: TestClient, execute: Callable[[str], RunOutcome], run_queue: Any) -> str:
    """A stored dataset of twelve items, ``scenes@1``."""
    send(client, dataset_tar(12))
    assert execute(run_queue.sent[-1]) is RunOutcome.ENDED
    return "scenes@1"


def accept(worker: BulkWorker, tenant: str = "default", **work: Any) -> str:
    """Writes the spec of a training; its id."""
    spec = RunSpec(
        run=new_run_id(RunKind.TRAINING),
        tenant=tenant,
        created_at=datetime.now(UTC),
        work=TrainingWork.model_validate(work).model_dump(mode="json"),
    )
    worker.runs.write_spec(spec)
    return spec.run


def train(worker: BulkWorker, run: str, processes: int = 1) -> RunOutcome:
    """One delivery of a training to the worker."""
    return execute_run(worker, run, {RunKind.TRAINING: training_handler(processes)}, alone=None)


def part_hashes(store: ObjectStore, run: str, stage: int = 0) -> dict[str, str]:
    """The sha256 of the weights of a part."""
    record = TrainingRecords(store, run).stage(stage)
    assert record is not None
    found = {name: stored for name, stored in record.files.items() if name.endswith(".safetensors")}
    for stored in found.values():
        assert hashlib.sha256(store.get(stored.key)).hexdigest() == stored.sha256
    return {name: stored.sha256 for name, stored in found.items()}


def losses(store: ObjectStore, run: str, stage: int = 0) -> list[dict[str, float]]:
    """The loss curve of a stage, without what depends on the machine's speed."""
    record = TrainingRecords(store, run).stage(stage)
    assert record is not None
    return [{k: v for k, v in line.items() if k != "seconds_per_iteration"} for line in record.series]


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Returns a function that starts training worker processes; all end at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(*arguments: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "TWINSET_DATA_DIR": str(settings.data_dir),
            "TWINSET_BROKER_URL": settings.broker_url,
            "TWINSET_SWEEP_INTERVAL_S": "0.2",
            "TWINSET_LEASE_S": "1",
            "TWINSET_DEVICE": "cpu",
        }
        log = (tmp_path / f"worker-{len(started)}.log").open("wb")
        command = [sys.executable, "-m", "workers.trainings.main", *arguments]
        started.append(subprocess.Popen(command, env=environment, stderr=log, stdout=log))
        log.close()
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()
