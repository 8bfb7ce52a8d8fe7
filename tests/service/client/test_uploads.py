"""Uploaded masks, listed and deleted through both clients and the command line; against the real API."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from service.cli.root import run
from service.client import ApiProblem, Twinset
from service.kit.png import encode_indices
from tests.service.cli.conftest import LiveApi
from tests.service.client.both import BothClients
from tests.service.client.stub import API


def send(url: str, count: int) -> list[str]:
    """The ids of new uploads, in order."""
    masks = [encode_indices(np.full((64, 64), number, dtype=np.uint8)) for number in range(count)]
    kind = {"Content-Type": "image/png"}
    return sorted(httpx.post(f"{url}/uploads", content=mask, headers=kind).json()["upload"] for mask in masks)


def test_uploads_are_listed_and_deleted(live_api: LiveApi, make_client: BothClients) -> None:
    client: Any = make_client(live_api.url)
    assert list(client.uploads()) == []
    ids = send(live_api.url, 3)
    found = list(client.uploads())
    assert [one.upload for one in found] == ids
    assert all(one.bytes > 0 and one.uploaded_at is not None for one in found)
    assert client.delete_upload(ids[1]) is True
    assert client.delete_upload(ids[1]) is False
    assert client.delete_upload("../jobs") is False
    assert [one.upload for one in client.uploads()] == [ids[0], ids[2]]


def test_all_pages_are_read(make_client: BothClients) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        start = int(request.url.params.get("cursor", 0))
        page = [{"upload": f"{start + number}", "bytes": 1, "uploaded_at": None} for number in range(2)]
        return httpx.Response(200, json={"uploads": page, "next_cursor": None if start else "2"})

    client: Any = make_client(API, transport=httpx.MockTransport(answer))
    assert [one.upload for one in client.uploads()] == ["0", "1", "2", "3"]


def test_what_the_server_refuses_is_raised(make_client: BothClients) -> None:
    refusal = httpx.Response(401, json={"title": "No key", "status": 401, "detail": "give one"})
    client: Any = make_client(API, transport=httpx.MockTransport(lambda request: refusal))
    with pytest.raises(ApiProblem):
        client.delete_upload("a")


def test_the_commands_list_and_delete(
    live_api: LiveApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["uploads", "list", "--url", live_api.url]) == 0
    assert "There are no uploads" in capsys.readouterr().out
    ids = send(live_api.url, 2)
    assert run(["uploads", "list", "--url", live_api.url]) == 0
    told = capsys.readouterr().out
    assert all(one in told for one in ids)
    assert run(["uploads", "delete", ids[0], "nobody", "--url", live_api.url]) == 1
    told_both = capsys.readouterr()
    assert f"Deleted {ids[0]}." in told_both.out
    assert "there is no upload nobody; 'twinset uploads list' shows" in told_both.err
    with Twinset(live_api.url) as client:
        assert [one.upload for one in client.uploads()] == ids[1:]
    assert run(["uploads", "delete", ids[1], "--url", live_api.url]) == 0
