"""Fixtures: stored datasets, the API over them, and a bulk worker that imports them."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.server import server_config
from service.settings import Settings
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
from workers.bulk.execute import RunOutcome

__all__ = ["app", "broker_url", "chunk_queue", "client", "execute", "hire", "run_queue", "settings", "store", "worker"]

Store = Callable[..., str]


@pytest.fixture
def stored(client: TestClient, execute: Callable[[str], RunOutcome], run_queue: Any) -> Store:
    """Returns a function that stores a dataset of so many items, some with captions; its name@version.

    ``splits`` are lists of item numbers; ``licence`` replaces the one in dataset.json.
    """

    def store_one(
        name: str = "scenes",
        items: int = 12,
        *,
        captions: int = 0,
        splits: dict[str, list[int]] | None = None,
        licence: str | None = "CC0-1.0",
        names: tuple[str, ...] = ("ground", "water", "house"),
    ) -> str:
        out, plain_data = io.BytesIO(), io.BytesIO(dataset_tar(items, names=names))
        with tarfile.open(fileobj=plain_data) as plain, tarfile.open(fileobj=out, mode="w") as tar:
            for member in plain.getmembers():
                data = plain.extractfile(member).read()  # type: ignore[union-attr]
                if member.name.endswith("dataset.json"):
                    about = json.loads(data) | {"licence": licence}
                    data = json.dumps({key: value for key, value in about.items() if value is not None}).encode()
                _put(tar, member.name, data)
            lines = [json.dumps({"stem": f"scene{n}", "text": f"scene {n}"}) for n in range(captions)]
            if lines:
                _put(tar, "set/captions.jsonl", "\n".join(lines).encode())
            for split, numbers in (splits or {}).items():
                _put(tar, f"set/{split}.txt", "\n".join(f"scene{n}" for n in numbers).encode())
        send(client, out.getvalue(), name=name)
        assert execute(run_queue.sent[-1]) is RunOutcome.ENDED
        return f"{name}@1"

    return store_one


def _put(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def url(app: FastAPI, settings: Settings) -> Iterator[str]:
    """The address of the API on a port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = server_config(app, settings.model_copy(update={"log_level": "warning"}))
        config.timeout_graceful_shutdown = 1
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the API ended at its start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
