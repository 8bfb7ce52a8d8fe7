"""Tests of fifty concurrent requests with one Idempotency-Key to two API processes: they create one job."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import httpx
import pytest

from service.store import keys
from service.store.s3 import S3Store
from tests.faults.conftest import MakeRig
from tests.faults.proxy import Proxy, Rule, StoreFault
from tests.faults.rig import Rig
from tests.faults.test_store_faults import CREDENTIALS, bucket, moto  # noqa: F401
from tests.faults.valkey_server import ValkeyServer

MAX_CONCURRENCY = 50
# no seed, so that each request would draw another one and make another job
BODY: dict[str, Any] = {"model": "tiny", "classes": ["water"], "count": 20}
OTHER_BODY: dict[str, Any] = {**BODY, "count": 17}


class SerialWrites(Proxy):
    """Forwards conditional writes one at a time: they are atomic in S3, but not in the server behind this proxy."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream, seed=11)
        self._conditional = threading.Lock()

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        if "if-none-match" not in {name.lower() for name in headers}:
            return super().forward(method, path, headers, body)
        with self._conditional:
            return super().forward(method, path, headers, body)


@pytest.fixture
def s3_rig(
    make_rig: MakeRig,
    server: ValkeyServer,
    bucket: str,  # noqa: F811
    moto: str,  # noqa: F811
    request: pytest.FixtureRequest,
) -> Iterator[Rig]:
    with SerialWrites(moto) as proxy:
        proxy.rules = getattr(request, "param", [])
        environment = CREDENTIALS | {"TWINSET_STORE_URL": f"s3://{bucket}", "TWINSET_S3_ENDPOINT_URL": proxy.url}
        rig = make_rig(server.url(14), store=S3Store(bucket, endpoint_url=moto), environment=environment)
        rig.redis.flushdb()
        yield rig
        rig.end()


class ConcurrentClients:
    """Fifty clients of two APIs over ``rig``, with open connections, that send their requests at the same time."""

    def __init__(self, rig: Rig) -> None:
        # with a limit samples are counted, so the test can check that refused requests left nothing counted
        rig.environment["TWINSET_LIMIT_QUEUED_SAMPLES"] = "1000000"
        urls = [rig.api()[1] for _ in range(2)]
        self.clients = [
            httpx.Client(base_url=url, trust_env=False, timeout=120)
            for url, _ in zip(cycle(urls), range(MAX_CONCURRENCY))
        ]

    def __enter__(self) -> ConcurrentClients:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()

    def post_at_once(self, key: str, bodies: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], httpx.Response]]:
        """The body that each client sent and its answer; clients use the ``bodies`` in turn, two clients at a time."""
        together = threading.Barrier(MAX_CONCURRENCY)

        def one(number: int) -> tuple[dict[str, Any], httpx.Response]:
            client, body = self.clients[number], bodies[number // 2 % len(bodies)]
            assert client.get("/healthz").status_code == 200
            together.wait(60)
            return body, client.post("/generate", json=body, headers={"Idempotency-Key": key})

        with ThreadPoolExecutor(MAX_CONCURRENCY) as pool:
            return list(pool.map(one, range(MAX_CONCURRENCY)))


def queued_chunks(rig: Rig) -> Counter[tuple[str, int]]:
    """How often each chunk is in the queue."""
    messages = rig.redis.lrange("generate", 0, -1)
    arguments = [json.loads(base64.b64decode(json.loads(message)["body"]))[1] for message in messages]
    return Counter((kwargs["job"], kwargs["chunk"]) for kwargs in arguments)


def check_one_job(
    rig: Rig, answers: Sequence[httpx.Response], body: dict[str, Any], jobs_before: Collection[str] = ()
) -> str:
    """Checks that all ``answers`` name one job, made as ``body`` says, and that no other exists; returns its id."""
    assert Counter(answer.status_code for answer in answers) == {202: len(answers)}, {answer.text for answer in answers}
    assert len({answer.headers["location"] for answer in answers}) == 1
    [parameters] = {json.dumps(answer.json()["parameters"]) for answer in answers}
    [job] = {answer.json()["id"] for answer in answers}
    spec = rig.repository.read_spec(job)
    assert (spec.seed, spec.count) == (json.loads(parameters)["seed"], body["count"])
    assert {info.key.split("/")[1] for info in rig.store.list(keys.jobs_prefix())} == {*jobs_before, job}
    assert [info.key for info in rig.store.list(keys.job_prefix(job))] == [keys.job_spec(job)]
    assert {chunk: times for (of, chunk), times in queued_chunks(rig).items() if of == job} == {0: 1, 1: 1}
    counted = [info.key for info in rig.store.list(keys.tenant_open_prefix(spec.tenant)) if job in info.key]
    assert counted == [keys.tenant_open_job(spec.tenant, job, body["count"])]
    return job


def check_rounds(rig: Rig, rounds: int) -> None:
    jobs: set[str] = set()
    with ConcurrentClients(rig) as clients:
        for number in range(rounds):
            answers = [answer for _, answer in clients.post_at_once(f"one-body-{number}", [BODY])]
            jobs.add(check_one_job(rig, answers, BODY, jobs))
        for number in range(rounds):
            answered = clients.post_at_once(f"two-bodies-{number}", [BODY, OTHER_BODY])
            winner = next(body for body, answer in answered if answer.status_code == 202)
            job = check_one_job(rig, [answer for body, answer in answered if body == winner], winner, jobs)
            jobs.add(job)
            losers = [answer for body, answer in answered if body != winner]
            assert len(losers) in (24, 26)
            for answer in losers:
                assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json"), (
                    answer.text
                )
                assert (answer.json()["type"], answer.json()["job"]) == ("/problems/idempotency-conflict", job)
            again = clients.clients[0].post(
                "/generate", json=winner, headers={"Idempotency-Key": f"two-bodies-{number}"}
            )
            assert (again.status_code, again.json()["id"]) == (202, job)
    # the samples of refused requests are not counted any more, and every key has one record
    assert len(list(rig.store.list(keys.tenant_open_prefix("default")))) == 2 * rounds
    assert len(list(rig.store.list("idempotency/"))) == 2 * rounds
    assert sum(queued_chunks(rig).values()) == 2 * 2 * rounds
    assert not any("Traceback" in process.log_text for process in rig.processes)


def test_concurrent_requests_with_one_key_create_one_job_in_a_folder_store(rig: Rig) -> None:
    check_rounds(rig, 3)


def test_concurrent_requests_with_one_key_create_one_job_in_s3(s3_rig: Rig) -> None:
    check_rounds(s3_rig, 1)


LOST_ANSWERS = [
    Rule(StoreFault.RESET_AFTER, method="PUT", chance=0.15),
    Rule(StoreFault.ERROR_AFTER, method="PUT", chance=0.15),
]


@pytest.mark.parametrize("s3_rig", [LOST_ANSWERS], indirect=True, ids=["answers lost"])
def test_concurrent_requests_create_one_job_while_store_answers_are_lost(s3_rig: Rig) -> None:
    with ConcurrentClients(s3_rig) as clients:
        answers = [answer for _, answer in clients.post_at_once("lost", [BODY])]
        for number in range(len(answers)):
            # all attempts at one write may fail; then the client has to repeat its request
            while answers[number].status_code == 503:
                answers[number] = clients.clients[number].post(
                    "/generate", json=BODY, headers={"Idempotency-Key": "lost"}
                )
        check_one_job(s3_rig, answers, BODY)
