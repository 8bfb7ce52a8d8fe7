"""Which requests are for this service at all: Host, Origin and Sec-Fetch-Site, headers that come twice or are too
large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.app import create_app
from service.jobs.repository import JobRepository
from tests.service.api.support import DictLiveState, NotingQueue, settings_for
from tests.service.api.wire import Wire

BODY: dict[str, Any] = {"model": "aerial", "classes": ["water"], "count": 1}
CHANGES = [
    ("POST", "/generate"),
    ("POST", "/uploads"),
    ("POST", "/datasets?name=x"),
    ("POST", "/exports"),
    ("POST", "/augmentations"),
    ("POST", "/jobs/j7ybr17pesw6kn47yb0/cancel"),
    ("POST", "/jobs/j7ybr17pesw6kn47yb0/retry"),
    ("DELETE", "/jobs/j7ybr17pesw6kn47yb0"),
    ("DELETE", "/uploads/x"),
    ("PUT", "/jobs"),
    ("BREW", "/jobs"),
]


def at(folder: Path, **settings: Any) -> TestClient:
    app = create_app(settings_for(folder, **settings), queue=NotingQueue(), live_state=DictLiveState())
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "127.0.0.2",
        "localhost@evil.example",
        "evil.example#localhost",
        "[::2]",
        "localhost:8000:1",
        "local host",
        "",
        "null",
        "a" * 10_000,
        "\u0661\u0662\u0667.0.0.1",
    ],
)
def test_another_hosts_name_is_refused_whatever_is_asked(tmp_path: Path, host: str) -> None:
    client = at(tmp_path)
    for method, path in [("GET", "/jobs"), ("GET", "/docs"), ("GET", "/objects/x"), ("GET", "/nowhere"), *CHANGES]:
        answer = client.request(method, path, headers={"Host": host.encode()})
        assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json")
    assert "TWINSET_ALLOWED_HOSTS" in answer.json()["detail"]
    for path in ("/healthz", "/readyz", "/metrics", "/autoscaling"):
        assert client.get(path, headers={"Host": "10.1.2.3:8000"}).status_code in (200, 503)


def test_own_names_are_known(tmp_path: Path) -> None:
    client = at(
        tmp_path, public_url="https://twins.example:8443/tools", allowed_hosts="twinset, *.lan.example:81, [fd00::1]"
    )
    for host in (
        "localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "twins.example",
        "twins.example:8443", "twinset", "twinset:80", "a.lan.example:81", "[fd00::1]:8000",
    ):  # fmt: skip
        assert client.get("/jobs", headers={"Host": host}).status_code == 200, host
    for host in (
        "lan.example:81",
        "a.lan.example",
        "a.lan.example:82",
        "twinset.evil.example",
        "xtwinset",
        "[fd00::2]",
    ):
        assert client.get("/jobs", headers={"Host": host}).status_code == 421, host
    assert at(tmp_path, allowed_hosts="*").get("/jobs", headers={"Host": "any.example"}).status_code == 200


def test_the_remedy_works(tmp_path: Path) -> None:
    foreign = {"Host": "twins.example", "Origin": "https://twins.example"}
    assert "TWINSET_ALLOWED_HOSTS" in at(tmp_path).post("/exports", json={}, headers=foreign).json()["detail"]
    assert at(tmp_path, allowed_hosts="twins.example").post("/exports", json={}, headers=foreign).status_code == 422


def test_the_address_of_the_connection_is_an_own_name(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path), queue=NotingQueue(), live_state=DictLiveState())
    for base, status in (("http://10.1.2.3:8000", 200), ("http://[fd00::1]:8000", 200)):
        client = TestClient(app, base_url=base)
        assert client.get("/jobs").status_code == status
        assert client.get("/jobs", headers={"Host": "10.1.2.4"}).status_code == 421


FOREIGN: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "http://localhost:8000"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1:8000.evil.example"},
    {"Origin": "file://"},
    {"Origin": "http://127.0.0.1:8000@evil.example"},
    {"Origin": "chrome-extension://127.0.0.1:8000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "Cross-Site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "nonsense"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8000"},
]


@pytest.mark.parametrize("page", FOREIGN)
def test_another_sites_page_changes_nothing(tmp_path: Path, page: dict[str, str]) -> None:
    client = at(tmp_path)
    for method, path in CHANGES:
        for sent in ({}, {"content": b"{}", "headers": {"Content-Type": "text/plain"}}, {"json": BODY}):
            headers = {**sent.get("headers", {}), **page}
            answer = client.request(method, path, **{**sent, "headers": headers})
            assert answer.status_code == 403, (method, path)
            assert answer.json()["type"] == "/problems/foreign-origin"
            assert "access-control-allow-origin" not in answer.headers
    assert client.get("/jobs", headers=page).status_code == 200, "reading is harmless: a page cannot see the answer"


def test_own_pages_and_programs_change_what_they_like(
    client: TestClient, repository: JobRepository, tmp_path: Path
) -> None:
    own: list[dict[str, str]] = [
        {},
        {"Origin": "http://testserver"},
        {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ]
    for headers in own:
        job = client.post("/generate", json=BODY, headers=headers).json()["id"]
        assert client.post(f"/jobs/{job}/cancel", headers=headers).status_code in (200, 202)
    behind = at(tmp_path / "behind", public_url="https://twins.example/tools", allowed_hosts="ui.example")
    for headers in (
        {"Origin": "https://twins.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://ui.example", "Sec-Fetch-Site": "same-site"},
    ):
        assert behind.post("/exports", json={}, headers=headers).status_code == 422, "the proxy may name another host"


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Origin",
        "Sec-Fetch-Site",
        "Authorization",
        "Content-Type",
        "Content-Length",
        "Transfer-Encoding",
        "Idempotency-Key",
    ],
)
def test_a_header_that_may_come_once_comes_once(client: TestClient, name: str) -> None:
    twice = [("Host", "testserver"), ("Content-Type", "application/json"), (name, "1"), (name.lower(), "1")]
    answer = client.post("/datasets", headers=twice, content=b"{}")
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/repeated-header")
    assert name in answer.json()["detail"]


def test_a_large_header_is_refused(app: FastAPI, client: TestClient) -> None:
    for answer in (
        client.get("/jobs", headers={"X": "a" * 70_000}),
        client.get("/jobs", headers={f"X-{number}": "a" * 100 for number in range(700)}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (431, "/problems/header-too-large")
    with Wire(app) as wire:
        for target in ("/jobs/" + "a" * 70_000, "/jobs?cursor=" + "a" * 70_000):
            assert wire.ask("GET", target).status == 431


def test_a_request_without_a_host_is_refused(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path), queue=NotingQueue(), live_state=DictLiveState())
    with Wire(app) as wire:
        assert wire.ask("GET", "/jobs", headers={"Host": ""}).status == 421
