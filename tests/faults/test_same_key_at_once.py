"""Fifty requests with one Idempotency-Key at the same moment, half of them to each of two API processes: one job."""

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
from tests.faults.conftest import Lay
from tests.faults.ground import Ground
from tests.faults.proxy import Fault, Proxy, Rule
from tests.faults.server import Server
from tests.faults.test_store_faults import CREDENTIALS, bucket, moto  # noqa: F401

MAX_CONCURRENCY = 50
# No seed: each request that got through would draw another, and no two would make the same job.
BODY: dict[str, Any] = {"model": "tiny", "classes": ["water"], "count": 20}
OTHER: dict[str, Any] = {**BODY, "count": 17}


class OneAtATime(Proxy):
    """Passes conditional writes on one after another: S3 decides them at once, the server behind looks first and writes
    then."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream, seed=11)
        self._conditional = threading.Lock()

    def pass_on(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        if "if-none-match" not in {name.lower() for name in headers}:
            return super().pass_on(method, path, headers, body)
        with self._conditional:
            return super().pass_on(method, path, headers, body)


@pytest.fixture
def s3_ground(
    lay: Lay,
    server: Server,
    bucket: str,  # noqa: F811
    moto: str,  # noqa: F811
    request: pytest.FixtureRequest,
) -> Iterator[Ground]:
    with OneAtATime(moto) as proxy:
        proxy.rules = getattr(request, "param", [])
        environment = CREDENTIALS | {"TWINSET_STORE_URL": f"s3://{bucket}", "TWINSET_S3_ENDPOINT_URL": proxy.url}
        ground = lay(server.url(14), store=S3Store(bucket, endpoint_url=moto), environment=environment)
        ground.redis.flushdb()
        yield ground
        ground.end()


class Crowd:
    """Clients of two APIs over ``ground``, each with a connection that is open before the requests start together."""

    def __init__(self, ground: Ground) -> None:
        # Counted, so that what was counted for a request that came to nothing can be looked for afterwards.
        ground.environment["TWINSET_LIMIT_QUEUED_SAMPLES"] = "1000000"
        urls = [ground.api()[1] for _ in range(2)]
        self.clients = [
            httpx.Client(base_url=url, trust_env=False, timeout=120)
            for url, _ in zip(cycle(urls), range(MAX_CONCURRENCY))
        ]

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()

    def ask(self, key: str, bodies: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], httpx.Response]]:
        """What each client was answered, and the body that it had sent; it takes the ``bodies`` in turn, two at a
        time."""
        together = threading.Barrier(MAX_CONCURRENCY)

        def one(number: int) -> tuple[dict[str, Any], httpx.Response]:
            client, body = self.clients[number], bodies[number // 2 % len(bodies)]
            assert client.get("/healthz").status_code == 200
            together.wait(60)
            return body, client.post("/generate", json=body, headers={"Idempotency-Key": key})

        with ThreadPoolExecutor(MAX_CONCURRENCY) as pool:
            return list(pool.map(one, range(MAX_CONCURRENCY)))


def sent(ground: Ground) -> Counter[tuple[str, int]]:
    """How often each chunk lies in the queue."""
    messages = ground.redis.lrange("generate", 0, -1)
    asked = [json.loads(base64.b64decode(json.loads(message)["body"]))[1] for message in messages]
    return Counter((kwargs["job"], kwargs["chunk"]) for kwargs in asked)


def check_one_job(
    ground: Ground, answers: Sequence[httpx.Response], body: dict[str, Any], jobs_before: Collection[str] = ()
) -> str:
    """The id of the one job that all ``answers`` name, which was made as ``body`` asked and is all that was made."""
    assert Counter(answer.status_code for answer in answers) == {202: len(answers)}, {answer.text for answer in answers}
    assert len({answer.headers["location"] for answer in answers}) == 1
    [parameters] = {json.dumps(answer.json()["parameters"]) for answer in answers}
    [job] = {answer.json()["id"] for answer in answers}
    spec = ground.repository.read_spec(job)
    assert (spec.seed, spec.count) == (json.loads(parameters)["seed"], body["count"])
    assert {info.key.split("/")[1] for info in ground.store.list(keys.jobs_prefix())} == {*jobs_before, job}
    assert [info.key for info in ground.store.list(keys.job_prefix(job))] == [keys.job_spec(job)]
    assert {chunk: times for (of, chunk), times in sent(ground).items() if of == job} == {0: 1, 1: 1}
    counted = [info.key for info in ground.store.list(keys.tenant_open_prefix(spec.tenant)) if job in info.key]
    assert counted == [keys.tenant_open_job(spec.tenant, job, body["count"])]
    return job


def check_rounds(ground: Ground, rounds: int) -> None:
    jobs: set[str] = set()
    with Crowd(ground) as crowd:
        for number in range(rounds):
            answers = [answer for _, answer in crowd.ask(f"one-body-{number}", [BODY])]
            jobs.add(check_one_job(ground, answers, BODY, jobs))
        for number in range(rounds):
            answered = crowd.ask(f"two-bodies-{number}", [BODY, OTHER])
            winner = next(body for body, answer in answered if answer.status_code == 202)
            job = check_one_job(ground, [answer for body, answer in answered if body == winner], winner, jobs)
            jobs.add(job)
            losers = [answer for body, answer in answered if body != winner]
            assert len(losers) in (24, 26)
            for answer in losers:
                assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json"), (
                    answer.text
                )
                assert (answer.json()["type"], answer.json()["job"]) == ("/problems/idempotency-conflict", job)
            again = crowd.clients[0].post("/generate", json=winner, headers={"Idempotency-Key": f"two-bodies-{number}"})
            assert (again.status_code, again.json()["id"]) == (202, job)
    # What was counted for those that came too late has been taken back, and every key has one record.
    assert len(list(ground.store.list(keys.tenant_open_prefix("default")))) == 2 * rounds
    assert len(list(ground.store.list("idempotency/"))) == 2 * rounds
    assert sum(sent(ground).values()) == 2 * 2 * rounds
    assert not any("Traceback" in process.said for process in ground.processes)


def test_one_key_at_once_is_one_job_over_a_folder(ground: Ground) -> None:
    check_rounds(ground, 3)


def test_one_key_at_once_is_one_job_over_s3(s3_ground: Ground) -> None:
    check_rounds(s3_ground, 1)


LOST = [Rule(Fault.RESET_AFTER, method="PUT", chance=0.15), Rule(Fault.ERROR_AFTER, method="PUT", chance=0.15)]


@pytest.mark.parametrize("s3_ground", [LOST], indirect=True, ids=["answers lost"])
def test_also_while_the_answer_to_every_fourth_write_is_lost(s3_ground: Ground) -> None:
    with Crowd(s3_ground) as crowd:
        answers = [answer for _, answer in crowd.ask("lost", [BODY])]
        for number, answer in enumerate(answers):
            # All attempts at one write may have been unlucky; then it is for the client to ask again.
            while answers[number].status_code == 503:
                answers[number] = crowd.clients[number].post(
                    "/generate", json=BODY, headers={"Idempotency-Key": "lost"}
                )
        check_one_job(s3_ground, answers, BODY)
