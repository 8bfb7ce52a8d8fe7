"""Real processes, a real broker and a real store, with leases and sweeps short enough that a fault is healed in
seconds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from service.store.folder import FolderStore
from tests.faults.checker import Reference, reference_of
from tests.faults.ground import QUICK, Ground
from tests.faults.nursery import Nursery
from tests.faults.server import Server

REFERENCE_COUNT = 40
_databases = itertools.count()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The broker of all tests that leave it in peace; each has a database of its own."""
    with Server(tmp_path_factory.mktemp("broker")) as server:
        yield server


Lay = Callable[..., Ground]


@pytest.fixture(scope="session")
def lay(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, tiny_model: Path) -> Lay:
    """Makes grounds: ``lay(broker_url)``, with a store other than a folder as ``store`` and ``environment``."""
    cache = tmp_path_factory.mktemp("model-cache")

    def lay_one(broker_url: str, *, store: object = None, environment: dict[str, str] | None = None) -> Ground:
        folder = tmp_path_factory.mktemp("ground")
        if store is None:
            store = FolderStore(folder / "store", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
        values = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        values |= QUICK | {
            "OMP_NUM_THREADS": "1",
            "TWINSET_DATA_DIR": str(folder),
            "TWINSET_MODEL_CACHE_DIR": str(cache),
            "TWINSET_BROKER_URL": broker_url,
            "TWINSET_STORE_URL": (folder / "store").as_uri(),
            "TWINSET_LINK_SECRET": "0123456789abcdef",
        }
        return Ground(folder, store, tiny_model, values | (environment or {}), nursery)  # type: ignore[arg-type]

    return lay_one


@pytest.fixture
def ground(lay: Lay, server: Server) -> Iterator[Ground]:
    """A folder store, and an empty database of the common broker."""
    url = server.url(next(_databases) % 15 + 1)
    with Redis.from_url(url) as client:
        client.flushdb()
    ground = lay(url)
    yield ground
    ground.end()


@pytest.fixture(scope="session")
def reference(lay: Lay, server: Server) -> Reference:
    """What an undisturbed worker makes of the request that all tests here send."""
    ground = lay(server.url(0))
    spec = ground.accept(count=REFERENCE_COUNT, chunk_size=8)
    ground.worker()
    ground.ended(spec)
    made = reference_of(ground.store, spec)
    ground.end()
    return made
