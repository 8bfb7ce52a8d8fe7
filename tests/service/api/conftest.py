"""A whole API over a folder store, with a queue that only notes what it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.app import create_app
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.store import ObjectStore, open_store
from tests.service.api.support import (
    DictLiveState,
    NotingQueue,
    card,
    register,
    settings_for,
)
from tests.service.store.conftest import aws, bucket, s3_endpoint, s3_store

__all__ = ["aws", "bucket", "s3_endpoint", "s3_store"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path)


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    store = open_store(settings)
    register(store, card(version="1.0.0"), card(version="1.10.0"), card(version="1.9.0"))
    return store


@pytest.fixture
def repository(store: ObjectStore) -> JobRepository:
    return JobRepository(store)


@pytest.fixture
def queue() -> NotingQueue:
    return NotingQueue()


@pytest.fixture
def live_state() -> DictLiveState:
    return DictLiveState()


@pytest.fixture
def app(settings: Settings, store: ObjectStore, queue: NotingQueue, live_state: DictLiveState) -> FastAPI:
    return create_app(settings, store=store, queue=queue, live_state=live_state)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
