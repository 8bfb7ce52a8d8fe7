"""Tests of ``twinset webhook-secret`` and ``twinset generate --callback-url``."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli.http_client import ApiClient
from service.cli.root import run
from service.kit.webhook_secrets import new_secret, parse_secrets, written
from service.webhooks.secrets import tenant_keys
from tests.service.cli.conftest import LiveApi


def test_the_generated_secret_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWINSET_DATA_DIR", str(tmp_path))
    assert run(["webhook-secret"]) == 0
    assert capsys.readouterr().out.strip() == (tmp_path / "webhook-secret").read_text()


def test_each_secret_has_a_line_and_each_tenant_its_own_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"{new_secret()} {new_secret()}"
    monkeypatch.setenv("TWINSET_WEBHOOK_SECRET", text)
    assert run(["webhook-secret"]) == 0
    assert capsys.readouterr().out.split() == text.split()
    assert run(["webhook-secret", "--tenant", "lab"]) == 0
    assert capsys.readouterr().out.split() == [written(key) for key in tenant_keys(parse_secrets(text), "lab")]
    assert run(["webhook-secret", "--tenant", "../lab"]) == 2
    assert "not a tenant's name" in capsys.readouterr().err


def test_a_callback_url_reaches_the_server_and_a_refusal_the_user(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["generate", "--model", "aerial", "--prompt", "water", "--count", "1", "--url", live_api.url]
    url = "https://hooks.example/twins"
    assert run([*common, "--out", str(tmp_path / "one"), "--callback-url", url]) == 0
    with ApiClient(live_api.url) as client:
        callback = client.job(live_api.worker.sent[0][0])["callback"]
    assert (callback["url"], callback["state"]) == (url, "pending")
    assert run([*common, "--out", str(tmp_path / "two"), "--callback-url", "https://localhost/"]) == 1
    assert "TWINSET_WEBHOOK_ALLOW_PRIVATE" in capsys.readouterr().err.replace("\n", "")
