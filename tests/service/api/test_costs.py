"""What a request may cost: bodies in memory, JSON, streams and transfers of a tenant, wrong keys, a line of the log."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api import wrong_keys
from service.api.app import create_app
from service.api.bodies import MAX_JSON_VALUES, BodyMemory
from service.api.log_redaction import masked
from service.api.slots import HeldStream, Slots
from service.api.wrong_keys import WrongKeys
from service.auth.api_key import KeyText
from service.errors import LimitReached, TwinsetError
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.store import ObjectStore
from tests.service.api.support import DictLiveState, NotingQueue, card, finish, register, settings_for
from tests.service.api.test_uploads import KIND, PNG

JSON = {"Content-Type": "application/json"}
BODY: dict[str, Any] = {"model": "aerial", "classes": ["water"], "count": 1}
MANY = MAX_JSON_VALUES + 1
HEAVY = {
    "lists": b'{"model":"aerial","count":1,"mask":[' + b"[]," * MANY + b"[]]}",
    "objects": b'{"model":"aerial","count":1,"mask":[' + b"{}," * MANY + b"{}]}",
    "numbers": b'{"model":"aerial","count":1,"classes":[' + b"1," * MANY + b"1]}",
    "members": b"{" + b",".join(b'"%x":1' % number for number in range(MANY)) + b"}",
    "no JSON": b"," * MANY,
}


@pytest.mark.parametrize("path", ["/generate", "/exports", "/augmentations", "/datasets"])
def test_json_of_many_values_is_refused_before_it_is_parsed(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(json, "loads", never)
    answers = [client.post(path, content=body, headers=JSON) for body in HEAVY.values()]
    monkeypatch.undo()
    for answer in answers:
        assert answer.status_code == 422
        assert f"more than {MAX_JSON_VALUES} values" in answer.json()["detail"]


def test_what_is_just_allowed_is_answered_soon(client: TestClient) -> None:
    values = b"[]," * (MAX_JSON_VALUES // 2 - 100)
    for path, members in {
        "/generate": (b"mask", b"classes", b"x"),
        "/exports": (b"sources", b"splits"),
        "/augmentations": (b"class_targets", b"x"),
    }.items():
        for member in members:
            began = time.monotonic()
            answer = client.post(path, content=b'{"%s":[%s[]]}' % (member, values), headers=JSON)
            assert answer.status_code == 422
            assert time.monotonic() - began < 2, (path, member)
            assert len(answer.content) < 20_000


def test_depth_is_counted_outside_of_strings(client: TestClient) -> None:
    body = {**BODY, "name": '["' * 50}
    assert client.post("/generate", json=body).status_code == 202
    deep = b'{"model":"aerial","mask":' + b"[" * 600 + b"]" * 600 + b"}"
    assert "nested more than" in client.post("/generate", content=deep, headers=JSON).json()["detail"]
    unended = b'{"' + b'\\"' * 200_000 + b"[" * 600
    began = time.monotonic()
    assert client.post("/generate", content=unended, headers=JSON).status_code in (400, 422)
    assert time.monotonic() - began < 2


def test_json_is_json_however_its_type_is_written(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, max_body_bytes=2000)
    client = TestClient(create_app(settings, queue=NotingQueue(), live_state=DictLiveState()))
    for kind in ("application/json", "application/JSON", "Application/Json; charset=utf-8", " application/json"):
        answer = client.post("/datasets", content=b" " * 3000, headers={"Content-Type": kind})
        assert answer.status_code == 413, kind
    for kind in ("application/json, application/zip", "application/zip, application/json", "application/zip;json"):
        answer = client.post("/datasets", content=b" " * 3000, headers={"Content-Type": kind})
        assert answer.status_code in (413, 415, 422), kind


def test_memory_for_bodies_is_shared_between_tenants() -> None:
    async def run() -> None:
        memory = BodyMemory(1_000_000, 250_000, wait_s=0.05)
        async with AsyncExitStack() as held:
            await held.enter_async_context(memory.reserve("mallory", 250_000))
            await held.enter_async_context(memory.reserve("mallory", None))  # not announced, so the largest
            with pytest.raises(LimitReached, match="send fewer at the same time"):
                await held.enter_async_context(memory.reserve("mallory", 250_000))
            await held.enter_async_context(memory.reserve("mallory", 10_000))  # small ones are free
            await held.enter_async_context(memory.reserve("acme", 250_000))
            await held.enter_async_context(memory.reserve("acme", 250_000))
            with pytest.raises(TwinsetError) as refused:
                await held.enter_async_context(memory.reserve("other", 250_000))
            assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
        async with memory.reserve("mallory", 250_000):
            pass

    asyncio.run(run())


def test_a_body_waits_for_memory() -> None:
    async def run() -> list[str]:
        memory = BodyMemory(100_000, 100_000)
        order = []

        async def one(name: str) -> None:
            async with memory.reserve("acme", 100_000):
                order.append(name)
                await asyncio.sleep(0.01)
                order.append(name)

        await asyncio.gather(*(one(name) for name in "abc"))
        return order

    assert asyncio.run(run()) == list("aabbcc")


def test_a_tenant_holds_so_many_streams_and_another_none_the_fewer() -> None:
    slots = Slots(2, "event streams", "TWINSET_LIMIT_STREAMS")

    async def endless() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    async def open_one(tenant: str) -> None:
        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            pass

        stream = HeldStream(endless(), slots=slots, tenant=tenant, media_type="text/event-stream")
        await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)

    async def run() -> None:
        held = [asyncio.create_task(open_one("mallory")) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(LimitReached, match="may have 2; close one"):
            await open_one("mallory")
        held.append(asyncio.create_task(open_one("acme")))
        await asyncio.sleep(0.01)
        assert not held[-1].done()
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        assert not slots.full("mallory")

    asyncio.run(run())


def test_streams_and_transfers_over_the_limit_are_answered_429(
    settings: Settings, store: ObjectStore, repository: JobRepository
) -> None:
    app = create_app(settings, store=store, queue=NotingQueue(), live_state=DictLiveState())
    client = TestClient(app)
    job = client.post("/generate", json=BODY).json()["id"]
    services = app.state.services
    services.streams.most = services.transfers.most = 1
    with services.streams.hold("default"), services.transfers.hold("default"):
        for path in (f"/jobs/{job}/events", f"/jobs/{job}/archive", f"/jobs/{job}/manifest"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "5"), path
        sent = client.post("/datasets?name=x", content=b"PK", headers={"Content-Type": "application/zip"})
        assert sent.status_code == 429
        waited = client.post("/generate", json=BODY, headers={"Prefer": "wait=5"})
        assert waited.status_code == 202
        assert "preference-applied" not in waited.headers
    finish(repository, repository.read_spec(job))
    assert client.get(f"/jobs/{job}/archive").status_code == 200
    assert client.get(f"/jobs/{job}/events").status_code == 200


def test_wrong_keys_are_answered_at_once_while_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(wrong_keys.asyncio, "sleep", sleep)
    now = [0.0]
    counter = WrongKeys(clock=lambda: now[0])

    async def run(times: int) -> int:
        slept.clear()
        for _ in range(times):
            await counter.wait()
        return len(slept)

    assert asyncio.run(run(wrong_keys.MAX_UNDELAYED)) == 0
    assert asyncio.run(run(20)) == 20
    now[0] += 1
    assert asyncio.run(run(60)) == 60 - wrong_keys.PER_S


def test_uploads_are_listed_and_deleted_and_give_their_room_back(settings: Settings, store: ObjectStore) -> None:
    register(store, card())
    changed = settings.model_copy(update={"limit_stored_bytes": 2 * len(PNG) + 10})
    app = create_app(changed, store=store, queue=NotingQueue(), live_state=DictLiveState())
    client = TestClient(app)
    first = client.post("/uploads", content=PNG, headers=KIND).json()["upload"]
    others = [client.post("/uploads", content=PNG + bytes(n), headers=KIND) for n in range(1, 4)]
    assert [answer.status_code for answer in others] == [201, 201, 429], "counted at once, not half a minute later"
    assert "DELETE /uploads/{id}" in others[-1].json()["detail"]
    listed = client.get("/uploads").json()["uploads"]
    assert sorted(each["upload"] for each in listed) == sorted([first, *(a.json()["upload"] for a in others[:2])])
    page = client.get("/uploads?limit=2").json()
    rest = client.get("/uploads", params={"cursor": page["next_cursor"]}).json()
    assert [*page["uploads"], *rest["uploads"]] == listed
    for each in listed[:2]:
        assert client.delete(f"/uploads/{each['upload']}").status_code == 204
        assert client.delete(f"/uploads/{each['upload']}").status_code == 404
    assert client.post("/generate", json=BODY).status_code == 202
    assert client.get("/uploads?cursor=x").status_code == 422


@pytest.mark.parametrize("piece", ["/objects/", "/twins/", "tws_", "?", "/objects/a?b ", '"', "x"])
def test_masking_a_line_takes_time_in_proportion_to_its_length(piece: str) -> None:
    began = time.perf_counter()
    assert len(masked(piece * (1_000_000 // len(piece)))) < 4000
    assert time.perf_counter() - began < 0.2


@pytest.mark.parametrize("path", ["/objects/jobs/j1/a.png", "/twins/j1/0/image.png", "/tools/twins/j1/0/mask.png"])
def test_the_signature_of_a_link_is_not_logged(path: str) -> None:
    line = masked(f'127.0.0.1 "GET {path}?expires=1&signature=abcdef HTTP/1.1" 200')
    assert line == f'127.0.0.1 "GET {path}?******** HTTP/1.1" 200'


@pytest.mark.parametrize("before", range(1900, 2100, 13))
def test_a_key_is_masked_where_a_long_line_is_cut(before: int) -> None:
    key = KeyText.new()
    assert key.secret[:6] not in masked(f"{'x' * before} {key.text()} {'x' * 500}")


def test_unknown_and_repeated_query_parameters_are_refused(client: TestClient) -> None:
    answer = client.get("/jobs?limt=3&state=running")
    assert answer.status_code == 422
    assert "did you mean 'limit'?" in answer.json()["detail"]
    assert answer.json()["errors"][0]["parameter"] == "limt"
    assert "comes 2 times" in client.get("/jobs?limit=1&limit=2").json()["detail"]
    for method, path in paths(client):
        answer = client.request(method, f"{path}?unknown=1", headers=JSON, content=b"{}" if method == "POST" else None)
        assert answer.status_code in (403, 415, 422), path
        assert "unknown" in answer.json()["detail"] or answer.status_code == 415, path
    many = client.get("/jobs", params={f"p{number}": "x" for number in range(3000)})
    assert len(many.json()["errors"]) == 20
    assert client.get("/healthz?at=1").status_code == 200, "a monitor may add what it likes"


def paths(client: TestClient) -> Iterator[tuple[str, str]]:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        if path not in ("/healthz", "/readyz", "/metrics", "/problems/{slug}"):
            yield from ((method.upper(), path) for method in methods)


def test_with_json_a_datasets_name_is_in_the_body_alone(client: TestClient) -> None:
    answer = client.post("/datasets?name=x", json={"name": "y", "prefix": "z"})
    assert answer.status_code == 422
    assert "with JSON it is a member of the body" in answer.json()["detail"]


def test_behind_a_prefix_the_documentation_stays_below_it(app: FastAPI, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, public_url="https://twins.example/tools/twinset")
    client = TestClient(create_app(settings, queue=NotingQueue(), live_state=DictLiveState()))
    page = client.get("/docs").text
    for part in ("static-offline-docs/swagger-ui.css", "static-offline-docs/swagger-ui-bundle.js", "openapi.json"):
        assert f"/tools/twinset/{part}" in page
        assert client.get(f"/{part}").status_code == 200, "the proxy takes the prefix away"
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/tools/twinset"}]
    assert "servers" not in TestClient(app).get("/openapi.json").json()


def test_a_signed_link_is_valid_in_one_spelling(client: TestClient, repository: JobRepository) -> None:
    job = client.post("/generate", json=BODY).json()["id"]
    finish(repository, repository.read_spec(job))
    url = urlsplit(client.get(f"/jobs/{job}/samples").json()["samples"][0]["image"]["url"])
    query = dict(parse_qsl(url.query))
    assert client.get(f"{url.path}?{url.query}").status_code == 200
    expires = query["expires"]
    for other in (f"{expires}\n", f" {expires}", f"+{expires}", f"0{expires}", f"{expires[0]}_{expires[1:]}", "\uff11"):
        assert client.get(url.path, params={**query, "expires": other}).status_code == 403
    for further in ("utm=1", "signature=x", f"signature={query['signature']}", f"expires={expires}"):
        assert client.get(f"{url.path}?{url.query}&{further}").status_code == 403


def test_a_job_is_accepted_with_the_flushes_that_its_spec_needs(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/generate", json=BODY)
    flushes: list[int] = []
    monkeypatch.setattr(os, "fsync", flushes.append)
    answer = client.post("/generate", json=BODY)
    monkeypatch.undo()
    assert answer.status_code == 202
    assert len(flushes) == 3  # the spec, the folder that it is in, and the folder of that folder
    assert answer.json()["id"] in [job["id"] for job in client.get("/jobs").json()["jobs"]]
