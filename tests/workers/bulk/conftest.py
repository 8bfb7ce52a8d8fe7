"""Fixtures: a real broker, a folder store, the API over it, and bulk workers that execute runs on demand."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from redis import Redis
from starlette.testclient import TestClient

from service.api.app import create_app
from service.kit.png import encode_image, encode_indices
from service.local.broker import EmbeddedBroker
from service.settings import Settings
from service.store import ObjectStore, open_store
from tests.service.api.support import NotingQueue, register
from tests.service.api.support import card as a_card
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.handlers import handlers
from workers.bulk.worker import BulkWorker, open_bulk_worker

Start = Callable[..., "subprocess.Popen[bytes]"]
OTHER_MAKE = Path(__file__).parent / "other_make"


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Returns a function that starts bulk workers, with ``other_make`` one with other encoders; all end at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(*, other_make: bool = False) -> subprocess.Popen[bytes]:
        paths = [*([str(OTHER_MAKE)] if other_make else []), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {}),
            "TWINSET_DATA_DIR": str(settings.data_dir),
            "TWINSET_BROKER_URL": settings.broker_url,
            "TWINSET_SWEEP_INTERVAL_S": "0.2",
            "TWINSET_LEASE_S": "1",
        }
        started.append(
            subprocess.Popen([sys.executable, "-m", "workers.bulk.main"], env=environment, stderr=subprocess.PIPE)
        )
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


class RecordingRunQueue:
    """Fake run queue that records the runs it is sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send_run(self, run: str, tenant: str = "default") -> None:
        self.sent.append(run)


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.url


@pytest.fixture
def settings(broker_url: str, tmp_path: Path) -> Settings:
    client = Redis.from_url(broker_url)
    client.flushall()
    client.close()
    return Settings(
        broker_url=broker_url,
        data_dir=tmp_path / "data",
        chunk_size=2,
        sweep_interval_s=0.1,
        max_chunk_attempts=2,
        lease_s=5,
    )


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    store = open_store(settings)
    register(store, a_card())
    return store


@pytest.fixture
def run_queue() -> RecordingRunQueue:
    return RecordingRunQueue()


@pytest.fixture
def chunk_queue() -> NotingQueue:
    return NotingQueue()


@pytest.fixture
def app(settings: Settings, store: ObjectStore, run_queue: RecordingRunQueue, chunk_queue: NotingQueue) -> FastAPI:
    return create_app(settings, store=store, queue=chunk_queue, run_queue=run_queue)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def hire(
    settings: Settings, store: ObjectStore, run_queue: RecordingRunQueue, chunk_queue: NotingQueue
) -> Iterator[Callable[..., BulkWorker]]:
    """Returns a factory of bulk workers, which are closed at the end; arguments replace the store or queues."""
    hired: list[BulkWorker] = []

    def hire_one(**changes: Any) -> BulkWorker:
        hired.append(
            open_bulk_worker(settings, **{"store": store, "queue": run_queue, "chunks": chunk_queue, **changes})
        )
        return hired[-1]

    yield hire_one
    for worker in hired:
        worker.close()


@pytest.fixture
def worker(hire: Callable[..., BulkWorker]) -> BulkWorker:
    return hire()


@pytest.fixture
def execute(worker: BulkWorker) -> Callable[[str], RunOutcome]:
    """Returns a function that executes one delivery of a run."""
    return lambda run: execute_run(worker, run, handlers())


def dataset_tar(
    items: int = 6, *, spoilt: int | None = None, names: tuple[str, ...] = ("ground", "water", "house")
) -> bytes:
    """A tar of a dataset in folders: images of 24 x 16 px, masks of three classes.

    The image of item ``spoilt`` is not a valid file.
    """
    random = np.random.default_rng(7)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def put(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(f"set/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        classes = ", ".join(
            f'{{"index": {i}, "name": "{name}", "colour": [{i * 90}, 20, {255 - i * 90}]}}'
            for i, name in enumerate(names)
        )
        put("dataset.json", f'{{"name": "Small scenes", "licence": "CC0-1.0", "classes": [{classes}]}}'.encode())
        for number in range(items):
            image = encode_image(random.integers(0, 256, (16, 24, 3), dtype=np.uint8), {})
            mask = np.zeros((16, 24), dtype=np.uint8)
            mask[4:12, 2 + number % 6 : 10] = 1
            mask[2:6, 14:20] = 2 if number % 3 == 0 else 1
            put(f"images/scene{number}.png", b"not a picture" if number == spoilt else image)
            put(f"masks/scene{number}.png", encode_indices(mask))
    return out.getvalue()


def send(client: TestClient, data: bytes, name: str = "scenes", **query: str) -> dict[str, Any]:
    """Uploads a dataset; returns the answer."""
    answer = client.post(
        "/datasets", params={"name": name, **query}, content=data, headers={"Content-Type": "application/x-tar"}
    )
    assert answer.status_code == 202, answer.text
    return answer.json()
