"""A request's id: in the answer, kept with the job, and in the log of the worker that makes its chunks."""

from __future__ import annotations

import json
import logging
import re

import pytest
from redis import Redis
from starlette.testclient import TestClient

from service.api.app import create_app
from service.kit.log_format import JsonFormatter
from service.settings import Settings
from service.store.folder import FolderStore
from tests.workers.conftest import Hire
from tests.workers.fakes import tiny_card
from workers.generation.chunk import ChunkOutcome, generate_chunk


def test_a_requests_id_goes_from_its_client_through_the_store_into_the_workers_log(
    settings: Settings, store: FolderStore, hire: Hire, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("workers.generation.chunk")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    worker = hire()
    card = tiny_card()
    body = {"model": card.name, "classes": [card.queryable[0]], "count": 2}
    try:
        with TestClient(create_app(settings, store=store)) as client:
            answer = client.post("/generate", json=body, headers={"X-Request-ID": "from-client.1"})
            assert answer.status_code == 202, answer.text
            assert answer.headers["x-request-id"] == "from-client.1"
            made = client.get("/healthz", headers={"X-Request-ID": "not an id\t"}).headers["x-request-id"]
            assert re.fullmatch("[0-9a-f]{32}", made)
        job = answer.json()["id"]
        assert worker.repository.read_spec(job).request_id == "from-client.1"
        redis.flushall()
        assert generate_chunk(worker, job, 0) is ChunkOutcome.RECORDED
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    handler.flush()
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"message": "job=' in line]
    assert (line["request_id"], line["job"], line["chunk"]) == ("from-client.1", job, 0)
    assert line["message"] == f"job={job} chunk=0 recorded"
