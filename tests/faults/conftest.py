"""Fixtures of the fault tests: real processes, broker and store, with short leases, so recovery takes seconds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from service.store.base import ObjectStore
from service.store.folder import FolderStore
from tests.faults.checker import Reference, reference_of
from tests.faults.prefork import Prefork
from tests.faults.rig import FAST_SETTINGS, OTHER_MAKE, Rig
from tests.faults.valkey_server import ValkeyServer
from tests.tiny_model import write_tiny_model

REFERENCE_COUNT = 40
_databases = itertools.count()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which workers of two makes get different bytes."""
    folder = tmp_path_factory.mktemp("drawn")
    write_tiny_model(folder, zeros=False)
    return folder


@pytest.fixture(scope="session")
def prefork() -> Iterator[Prefork]:
    with Prefork() as prefork:
        yield prefork


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """The shared broker of the tests that do not disturb it; each test has its own database."""
    with ValkeyServer(tmp_path_factory.mktemp("broker")) as server:
        yield server


MakeRig = Callable[..., Rig]


@pytest.fixture(scope="session")
def make_rig(tmp_path_factory: pytest.TempPathFactory, prefork: Prefork, tiny_model: Path) -> MakeRig:
    """Returns a factory of rigs: ``make_rig(broker_url, store=..., environment=...)``, by default over a folder."""
    cache = tmp_path_factory.mktemp("model-cache")

    def make_one(
        broker_url: str, *, store: ObjectStore | None = None, environment: dict[str, str] | None = None
    ) -> Rig:
        folder = tmp_path_factory.mktemp("rig")
        if store is None:
            store = FolderStore(folder / "store", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
        values = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        values |= FAST_SETTINGS | {
            "OMP_NUM_THREADS": "1",
            "TWINSET_DATA_DIR": str(folder),
            "TWINSET_MODEL_CACHE_DIR": str(cache),
            "TWINSET_BROKER_URL": broker_url,
            "TWINSET_STORE_URL": (folder / "store").as_uri(),
            "TWINSET_LINK_SECRET": "0123456789abcdef",
        }
        return Rig(folder, store, tiny_model, values | (environment or {}), prefork)

    return make_one


@pytest.fixture
def rig(make_rig: MakeRig, server: ValkeyServer) -> Iterator[Rig]:
    """A rig with a folder store and an empty database of the shared broker."""
    url = server.url(next(_databases) % 15 + 1)
    with Redis.from_url(url) as client:
        client.flushdb()
    rig = make_rig(url)
    yield rig
    rig.end()


@pytest.fixture(scope="session")
def reference(make_rig: MakeRig, server: ValkeyServer) -> Reference:
    """The hashes that an undisturbed worker gets for the request that all tests here send."""
    return _undisturbed(make_rig(server.url(0)))


@pytest.fixture(scope="session")
def other_reference(make_rig: MakeRig, server: ValkeyServer) -> Reference:
    """The same of a worker of another make, which gets other bytes."""
    return _undisturbed(make_rig(server.url(0), environment=OTHER_MAKE))


def _undisturbed(rig: Rig) -> Reference:
    rig.redis.flushdb()
    spec = rig.accept(count=REFERENCE_COUNT, chunk_size=8)
    rig.worker()
    rig.wait_until_ended(spec)
    made = reference_of(rig.store, spec)
    rig.end()
    return made
