"""A whole API over a folder store, with a queue that only notes what it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.app import create_app
from service.jobs.repository import Ledger
from service.settings import Settings
from service.store import ObjectStore, open_store
from tests.service.api.support import (
    DictHints,
    NotingQueue,
    card,
    register,
    settings_for,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path)


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    store = open_store(settings)
    register(store, card(version="1.0.0"), card(version="1.10.0"), card(version="1.9.0"))
    return store


@pytest.fixture
def ledger(store: ObjectStore) -> Ledger:
    return Ledger(store)


@pytest.fixture
def queue() -> NotingQueue:
    return NotingQueue()


@pytest.fixture
def hints() -> DictHints:
    return DictHints()


@pytest.fixture
def app(settings: Settings, store: ObjectStore, queue: NotingQueue, hints: DictHints) -> FastAPI:
    return create_app(settings, store=store, queue=queue, hints=hints)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
