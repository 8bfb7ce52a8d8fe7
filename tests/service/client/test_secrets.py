"""The API key is sent to the server only; neither it nor a link's signature is ever shown or logged."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import httpx
import pytest

from service.client import ApiProblem
from service.client.config import DEFAULT_URL, Config
from service.errors import SettingsError
from tests.service.client.both import BothClients
from tests.service.client.stub import API, Stub

KEY = "tws_4mw1y7kq02zt_0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk"


def test_the_key_is_sent_to_the_api_only(make_client: BothClients, tmp_path: Path) -> None:
    stub = Stub({"a.tar": b"a", "b.tar": b"b"}, format="webdataset", polls=0)
    make_client(API, KEY, transport=stub.transport()).get_export("e7ybr17pesw6kn47yb0").download(tmp_path / "set")
    by_host: dict[str, set[str | None]] = {}
    for request in stub.requests:
        by_host.setdefault(request.url.host, set()).add(request.headers.get("authorization"))
    assert by_host == {"twins.example": {f"Bearer {KEY}"}, "store.example": {None}}


def test_a_signed_link_to_the_server_is_fetched_without_the_key_too(make_client: BothClients, tmp_path: Path) -> None:
    stub = Stub({"a.tar": b"a"}, format="webdataset", polls=0)

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/objects/"):
            assert "authorization" not in request.headers
            return httpx.Response(200, content=b"a")
        answer = stub.handle(request)
        if request.url.path.endswith("/files"):
            listed = answer.json()
            listed["files"][0]["url"] = "/objects/a.tar?expires=1&signature=x"
            return httpx.Response(200, json=listed)
        return answer

    export = make_client(API, KEY, transport=httpx.MockTransport(handle)).get_export("e7ybr17pesw6kn47yb0")
    assert export.download(tmp_path / "set").fetched == 1


def test_a_redirect_is_not_followed_with_the_key(make_client: BothClients) -> None:
    hosts = []

    def handle(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(307, headers={"Location": "https://elsewhere.example/jobs"})

    with pytest.raises(ApiProblem, match="redirects to"):
        make_client(API, KEY, transport=httpx.MockTransport(handle)).models()
    assert hosts == ["twins.example"]


def test_nothing_shows_the_key(make_client: BothClients, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stub = Stub({"a.tar": b"a"}, format="webdataset", polls=0)
    client = make_client(API, KEY, transport=stub.transport())
    export = client.get_export("e7ybr17pesw6kn47yb0")
    export.download(tmp_path / "set")
    list(export.files())
    shown = [repr(client), repr(client.config), repr(export), repr(export.info), repr(next(iter(export.files())))]
    text = "\n".join([*shown, *(record.getMessage() for record in caplog.records)])
    assert "HTTP Request" in text, "httpx has logged"
    assert KEY not in text
    assert KEY[17:] not in text
    assert "5ec2e7" not in text
    assert "/files/a.tar?********" in text


def test_a_run_cannot_be_pickled_with_its_connection(make_client: BothClients) -> None:
    export = make_client(API, KEY, transport=Stub().transport()).get_export("e7ybr17pesw6kn47yb0")
    with pytest.raises(TypeError, match="pass its id"):
        pickle.dumps(getattr(export, "inner", export))


def test_address_and_key_are_arguments_or_from_the_environment() -> None:
    assert Config.read(environ={}).url == DEFAULT_URL
    assert Config.read(environ={}).api_key is None
    environ = {"TWINSET_PUBLIC_URL": "https://twins.example/", "TWINSET_API_KEY": f" {KEY}\n"}
    config = Config.read(environ=environ)
    assert config.url == API
    assert config.api_key is not None
    assert config.api_key.get_secret_value() == KEY
    assert Config.read("http://other.example", "", environ=environ).api_key is None, "an empty key is no key"
    invalid = ("twins.example", "ftp://twins.example", "https://")
    for url in (*invalid, "https://user:secret@twins.example", "https://twins.example?key=secret"):
        with pytest.raises(SettingsError) as caught:
            Config.read(url, environ={})
        assert "secret" not in str(caught.value)
    for key in ("two words", "tws_\xe9"):
        with pytest.raises(SettingsError) as caught:
            Config.read(None, key, environ={})
        assert key not in str(caught.value)
    for limits in ({"retry_timeout_s": -1}, {"timeout_s": 0}):
        with pytest.raises(SettingsError):
            Config.read(environ={}, **limits)  # type: ignore[arg-type]


def test_requests_to_this_machine_do_not_use_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:3128")
    with httpx.Client(**Config(DEFAULT_URL).http_options()) as http:
        for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000"):
            assert http._transport_for_url(httpx.URL(f"http://{host}/jobs")) is http._transport
        assert http._transport_for_url(httpx.URL("https://twins.example/jobs")) is not http._transport
