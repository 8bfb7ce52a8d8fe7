"""Tests of ``twinset keys``, of servers that need a key to start, and that no key is logged or printed."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from service.api.log_redaction import RedactingFilter, masked
from service.auth.api_key import KeyText
from service.auth.key_store import KeyStore
from service.cli.http_client import ApiClient, ProblemAnswer
from service.cli.root import run
from service.jobs.repository import JobRepository
from service.settings import read_settings
from service.store import open_store
from tests.service.api.support import (
    CLOSED_PORT,
    card,
    finish,
    register,
)
from tests.service.cli.conftest import LiveApi
from tests.waiting import until

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def key_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """The ring of the store that the commands find."""
    monkeypatch.setenv("TWINSET_DATA_DIR", str(tmp_path / "data"))
    return KeyStore(open_store(read_settings()))


def test_a_key_is_shown_once_and_alone_on_standard_output(key_store: KeyStore, capsys: Captured) -> None:
    assert run(["keys", "create", "--tenant", "acme", "--name", "Ana's [laptop]", "--expires-in", "30"]) == 0
    told = capsys.readouterr()
    key = KeyText.parse(told.out.strip())
    assert key is not None
    assert told.out.count("\n") == 1
    assert key.secret not in told.err
    assert "shown only once" in told.err
    [record] = key_store.list()
    assert (record.id, record.tenant, record.secret_sha256) == (key.id, "acme", key.sha256())
    assert record.expires_at is not None
    assert (record.expires_at - record.created_at).days == 30
    kept = "".join(path.read_text() for path in Path(os.environ["TWINSET_DATA_DIR"]).rglob("*.json"))
    assert record.secret_sha256 in kept
    assert key.secret not in kept


def test_keys_are_listed_without_secrets_and_revoked_by_id(key_store: KeyStore, capsys: Captured) -> None:
    assert run(["keys", "list"]) == 0
    assert "twinset keys create" in capsys.readouterr().out
    first, _ = key_store.create("acme", name="laptop")
    second, _ = key_store.create("other")
    assert run(["keys", "revoke", first.id]) == 0
    assert "within 10 s" in capsys.readouterr().out
    assert run(["keys", "list", "--json"]) == 0
    text = capsys.readouterr().out
    rows = {row["id"]: row for row in json.loads(text)}
    assert {key: row["state"] for key, row in rows.items()} == {first.id: "revoked", second.id: "valid"}
    assert (rows[first.id]["tenant"], rows[first.id]["name"]) == ("acme", "laptop")
    assert run(["keys", "list"]) == 0
    text += capsys.readouterr().out
    assert "laptop" in text
    assert first.id in text
    assert second.id in text
    for key in (first, second):
        assert key.secret not in text
        assert key.sha256() not in text


def test_invalid_arguments_are_refused_without_repeating_a_key(key_store: KeyStore, capsys: Captured) -> None:
    assert run(["keys", "create", "--tenant", "../x"]) == 1
    assert "lower-case letters" in capsys.readouterr().err
    key, _ = key_store.create("acme")
    assert run(["keys", "revoke", key.text()]) == 1
    told = capsys.readouterr()
    assert "12 characters after tws_" in " ".join(told.err.split())
    assert key.secret not in told.err + told.out
    assert run(["keys", "revoke", "../../etc/passwd"]) == 1
    assert [record.revoked_at for record in key_store.list()] == [None]


def serve(folder: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TWINSET_")}
    environment = {
        **kept,
        "TWINSET_DATA_DIR": str(folder),
        "TWINSET_BROKER_URL": CLOSED_PORT,
        "PYTHONUNBUFFERED": "1",
        **settings,
    }
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", *arguments]
    with (folder / "serve.log").open("w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True)


def served_at(folder: Path) -> str:
    return until(lambda: re.search(r"listens at (http://127\.0\.0\.1:\d+)", (folder / "serve.log").read_text()))[1]


def test_serve_beyond_loopback_refuses_to_start_without_a_key(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::"):
        if host == "::" and not socket.has_ipv6:
            continue
        process = serve(tmp_path, "--host", host)
        assert process.wait(60) == 1
        told = (tmp_path / "serve.log").read_text()
        assert "twinset keys create" in told
        assert "TWINSET_REQUIRE_KEYS=false" in told
        assert "listens at" not in told


@pytest.mark.parametrize("way", ["a key", "something in front"])
def test_serve_beyond_loopback_starts_with_a_key_or_by_setting(tmp_path: Path, way: str) -> None:
    store = open_store(read_settings(data_dir=tmp_path))
    key, _ = KeyStore(store).create("acme") if way == "a key" else (None, None)
    process = serve(tmp_path, "--host", "0.0.0.0", TWINSET_REQUIRE_KEYS="auto" if key else "false")
    try:
        url = served_at(tmp_path)
        until(lambda: _answers(url))
        assert httpx.get(f"{url}/jobs", trust_env=False).status_code == (401 if key else 200)
        if key:
            headers = {"Authorization": f"Bearer {key.text()}"}
            assert httpx.get(f"{url}/jobs", headers=headers, trust_env=False).json()["jobs"] == []
    finally:
        process.terminate()
        process.wait(30)
    assert key or "no API key is required" in (tmp_path / "serve.log").read_text()


def test_the_log_contains_no_keys_or_signatures(tmp_path: Path) -> None:
    store = open_store(read_settings(data_dir=tmp_path))
    register(store, card())
    key, _ = KeyStore(store).create("acme")
    process = serve(tmp_path, TWINSET_LOG_LEVEL="debug")
    try:
        url = served_at(tmp_path)
        until(lambda: _answers(url))
        with ApiClient(url, api_key=key.text()) as client:
            job = client.submit({"model": "aerial", "classes": ["water"], "count": 1})["id"]
            repository = JobRepository(store)
            finish(repository, repository.read_spec(job))
            [sample] = client.samples(job)
            link = sample["image"]["url"]
            assert client.fetch(link)
        for path in (f"/jobs?key={key.text()}", f"/jobs/{key.text()}"):
            httpx.get(url + path, trust_env=False)
        httpx.get(f"{url}/jobs", headers={"Authorization": f"Bearer {key.text()} x"}, trust_env=False)
    finally:
        process.terminate()
        process.wait(30)
    log = (tmp_path / "serve.log").read_text()
    signature = re.search(r"signature=(\w+)", link)
    assert signature
    assert signature[1] not in log
    assert "signature" not in log
    assert key.secret not in log
    assert f"tws_{key.id}_********" in log
    assert "/objects/jobs/" in log
    assert '"POST /generate HTTP/1.1" 202' in log


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_secrets_in_log_lines_are_masked() -> None:
    key = KeyText.new()
    assert masked("/t/objects/a/b.png?expires=1&%73ignature=ab") == "/t/objects/a/b.png?********"
    assert masked("GET /twins/j/3/image.png?shard=000000&signature=ab HTTP") == "GET /twins/j/3/image.png?******** HTTP"
    assert masked(f"/jobs?limit=3&key={key.text()}&a=b") == f"/jobs?limit=3&key=tws_{key.id}_********&a=b"
    record = logging.LogRecord(
        "x", logging.INFO, "", 0, '%s - "%s %s" %d', ("a:1", "GET", "/objects/k?signature=ab", 200), None
    )
    assert RedactingFilter().filter(record)
    assert record.getMessage() == 'a:1 - "GET /objects/k?********" 200'


def test_generate_takes_its_key_from_the_environment(
    live_api: LiveApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    key, _ = KeyStore(live_api.store).create("acme")
    arguments = ["generate", "--model", "aerial", "--classes", "water", "--count", "2", "--url", live_api.url, "--out"]
    monkeypatch.setenv("TWINSET_API_KEY", KeyText.new().text())
    assert run([*arguments, str(tmp_path / "none")]) == 1
    assert "The API key is not valid" in capsys.readouterr().err.replace("the API", "The API")
    monkeypatch.setenv("TWINSET_API_KEY", f"{key.text()}\n")
    assert run([*arguments, str(tmp_path / "twins")]) == 0
    told = capsys.readouterr()
    assert len(list((tmp_path / "twins" / "images").iterdir())) == 2
    [job] = JobRepository(live_api.store).jobs()
    assert JobRepository(live_api.store).read_spec(job).tenant == "acme"
    assert run(["settings"]) == 0
    assert key.secret not in told.out + told.err + capsys.readouterr().out
    assert run(["generate", "--help"]) == 0
    help_text = capsys.readouterr().out
    assert "TWINSET_API_KEY" in help_text
    assert "--api-key" not in help_text


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("TWINSET_API_KEY", "tws_with a space")
    assert run(["settings"]) == 1
    told = capsys.readouterr().err
    assert "TWINSET_API_KEY: " in told
    assert "with a space" not in told


@pytest.fixture
def told_off() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that answers 429 once, then 200; its address, and the headers of each request."""
    heard: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(429 if len(heard) == 1 else 200)
            self.send_header("Retry-After", "1" if self.path == "/jobs/soon" else "3600")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        server.shutdown()


def test_a_client_waits_as_retry_after_says(told_off: tuple[str, list[dict[str, str]]]) -> None:
    url, heard = told_off
    began = time.monotonic()
    with ApiClient(url) as client:
        assert client.job("soon") == {}
    assert len(heard) == 2
    assert time.monotonic() - began >= 1


def test_a_client_does_not_wait_longer_than_its_timeout(told_off: tuple[str, list[dict[str, str]]]) -> None:
    url, heard = told_off
    with ApiClient(url) as client, pytest.raises(ProblemAnswer):
        client.job("late")
    assert len(heard) == 1


def test_the_key_is_sent_to_the_server_but_not_to_links(told_off: tuple[str, list[dict[str, str]]]) -> None:
    url, heard = told_off
    with ApiClient(url, api_key="tws_key") as client:
        client.job("soon")
        client.fetch(f"{url}/elsewhere?X-Amz-Signature=ab")
    assert [headers.get("authorization") for headers in heard] == ["Bearer tws_key", "Bearer tws_key", None]
