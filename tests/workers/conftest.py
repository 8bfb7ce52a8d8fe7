"""Fixtures for the workers' tests: a real broker, a folder store with the tiny model, and workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from redis import Redis

from model_store.card import load_card
from model_store.interface import System
from model_store.loading import check_files
from service.local.broker import EmbeddedBroker
from service.settings import Settings
from service.store import keys
from service.store.base import ObjectStore
from service.store.folder import FolderStore
from tests.workers.fakes import WEIGHTS, Post, TinySystem, tiny_card
from workers.generation.worker import Worker, open_worker

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.url


@pytest.fixture
def redis(broker_url: str) -> Iterator[Redis]:
    """The broker's Redis, empty."""
    client = Redis.from_url(broker_url, decode_responses=True)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """A folder store in which the tiny model is registered."""
    store = FolderStore(tmp_path / "store", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(store)
    return store


def register(store: ObjectStore) -> None:
    card = tiny_card()
    store.put(keys.model_file(card.name, card.version, "model.safetensors"), WEIGHTS)
    store.put(keys.model_card(card.name, card.version), card.model_dump_json().encode())


@pytest.fixture
def settings(broker_url: str, redis: Redis, tmp_path: Path) -> Settings:
    """Small and quick: two chunks in flight, short leases and sweeps. Depends on ``redis``, so that it starts empty."""
    return Settings(
        broker_url=broker_url,
        data_dir=tmp_path / "data",
        chunks_in_flight=2,
        cpu_threads=1,
        device="cpu",
        dtype="float32",
        max_chunk_attempts=3,
        batch_shape=8,
        lease_s=30,
        sweep_interval_s=0.1,
    )


def load_tiny(folder: Path) -> System:
    """A fake of ``load_system``: checks the hashes as it does, and returns a :class:`TinySystem`."""
    card = load_card(folder)
    check_files(folder, card)
    return TinySystem(card)


@pytest.fixture
def post() -> Post:
    return Post()


Hire = Callable[..., Worker]


@pytest.fixture
def hire(settings: Settings, store: FolderStore, post: Post) -> Iterator[Hire]:
    """A factory of workers, closed at the end; its arguments replace settings, store, load or grace_s."""
    workers: list[Worker] = []

    def hire_one(**changes: object) -> Worker:
        own = {name: changes.pop(name) for name in ("store", "load", "grace_s") if name in changes}
        arguments = {"store": store, "load": load_tiny, "queue": post} | own
        workers.append(open_worker(settings.model_copy(update=changes), **arguments))
        return workers[-1]

    yield hire_one
    for worker in workers:
        worker.close()


@pytest.fixture
def worker(hire: Hire) -> Worker:
    return hire()
