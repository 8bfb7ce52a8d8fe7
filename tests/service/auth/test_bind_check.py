"""Which addresses are loopback, and what an API on any other needs before it starts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from service.auth.bind_check import is_loopback, require_keys
from service.auth.key_store import KeyStore
from service.errors import SettingsError, StoreUnavailable
from service.store import ObjectStore, open_store
from tests.service.api.support import settings_for


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(settings_for(tmp_path))


def test_loopback_addresses_are_recognised() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")))
    assert not any(
        map(
            is_loopback,
            ("0.0.0.0", "::", "", "10.0.0.1", "192.168.1.5", "::ffff:10.0.0.1", "fe80::1%eth0", "localhost.evil"),
        )
    )


def test_loopback_needs_nothing(tmp_path: Path, store: ObjectStore) -> None:
    settings = settings_for(tmp_path)
    assert require_keys(settings, store, "127.0.0.1") is settings


@pytest.mark.parametrize("setting", ["auto", "true"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.1.2.3"])
def test_another_address_needs_a_key(tmp_path: Path, store: ObjectStore, setting: str, address: str) -> None:
    settings = settings_for(tmp_path, require_keys=setting)
    with pytest.raises(SettingsError, match=r"twinset keys create .*TWINSET_REQUIRE_KEYS=false"):
        require_keys(settings, store, address)
    KeyStore(store).create("acme")
    assert require_keys(settings, store, address).require_keys == "true"


def test_a_setting_says_that_a_proxy_authenticates(
    tmp_path: Path, store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(tmp_path, require_keys="False")
    with caplog.at_level(logging.WARNING):
        assert require_keys(settings, store, "0.0.0.0").require_keys == "false"
    assert "no API key is required" in caplog.text


def test_keys_are_required_if_the_store_does_not_answer_yet(tmp_path: Path, store: ObjectStore) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the bucket is not there yet")

    store.list = broken  # type: ignore[method-assign]
    assert require_keys(settings_for(tmp_path), store, "0.0.0.0").require_keys == "true"
