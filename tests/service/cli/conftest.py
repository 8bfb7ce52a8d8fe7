"""Fixture: a real API on a real port, with a queue that makes a chunk's twins when it is sent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn

from service.api.app import create_app
from service.api.server import server_config
from service.broker.priority import Priority
from service.jobs.repository import JobRepository
from service.store import ObjectStore, open_store
from tests.service.api.support import (
    DictLiveState,
    card,
    make_chunk,
    mask_card,
    register,
    settings_for,
)
from tests.stored_twins import mask_key


@dataclass
class InstantWorker:
    """Fake queue that makes each chunk at once.

    ``idle`` makes none; samples in ``failing`` fail; without ``with_masks`` images have no masks; the mask with the
    index ``damaged_mask`` is overwritten.
    """

    repository: JobRepository
    idle: bool = False
    with_masks: bool = True
    failing: tuple[int, ...] = ()
    damaged_mask: int | None = None
    sent: list[tuple[str, int]] = field(default_factory=list)

    def send_chunk(self, job: str, chunk: int, priority: Priority = "normal", tenant: str = "default") -> None:
        self.sent.append((job, chunk))
        if self.idle:
            return
        spec = self.repository.read_spec(job)
        make_chunk(self.repository, spec, chunk, failed=self.failing, with_masks=self.with_masks)
        if self.damaged_mask is not None and self.damaged_mask in spec.chunk_range(chunk):
            self.repository.store.put(mask_key(self.repository.store, job, self.damaged_mask), b"not what was recorded")
        if chunk + 3 < spec.chunks:
            self.send_chunk(job, chunk + 3, priority)
        if not list(self.repository.chunks.missing(spec)):
            self.repository.conclude(spec)

    def send_chunks(
        self, job: str, chunks: Sequence[int], priority: Priority = "normal", tenant: str = "default"
    ) -> None:
        for chunk in chunks:
            self.send_chunk(job, chunk, priority, tenant)


@dataclass(frozen=True)
class LiveApi:
    """A running API: where it is, its store, and the worker behind it."""

    url: str
    store: ObjectStore
    worker: InstantWorker


@pytest.fixture
def live_api(tmp_path: Path) -> Iterator[LiveApi]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = settings_for(tmp_path / "server", public_url=url)
        store = open_store(settings)
        register(store, card(defaults={"steps": 10, "guidance_scale": 2.0, "eta": 0.0}), mask_card())
        worker = InstantWorker(JobRepository(store))
        app = create_app(settings, store=store, queue=worker, live_state=DictLiveState())
        config = server_config(app, settings.model_copy(update={"log_level": "warning"}))
        config.timeout_graceful_shutdown = 1
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the API ended at its start"
            time.sleep(0.01)
        yield LiveApi(url, store, worker)
        server.should_exit = True
        thread.join(10)
