"""The catalogue: bundled and registered cards, versions in order, and what is broken left out but named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.errors import CardError, UnknownModel
from service.registry.catalogue import Catalogue
from service.store.base import ObjectStore
from service.store.folder import FolderStore
from tests.service.api.support import card, register


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return FolderStore(tmp_path / "store", link_secret=b"0" * 16, public_url="http://localhost")


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    folder = tmp_path / "bundled" / "street" / "2.0.0"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(card("street", "2.0.0", title="bundled")))
    return tmp_path / "bundled"


def test_bundled_and_registered_cards_are_listed_together(store: ObjectStore, bundled: Path) -> None:
    register(store, card("aerial", "1.9.0"), card("aerial", "1.10.0"), card("street", "1.0.0"))
    catalogue = Catalogue(store, bundled=bundled)
    assert [each.id for each in catalogue.cards(tenant="acme")] == [
        "aerial@1.10.0",
        "aerial@1.9.0",
        "street@2.0.0",
        "street@1.0.0",
    ]
    assert catalogue.resolve("aerial", tenant="acme").id == "aerial@1.10.0"
    assert catalogue.resolve("street@1.0.0", tenant="acme").id == "street@1.0.0"


def test_a_bundled_card_is_not_displaced(store: ObjectStore, bundled: Path) -> None:
    register(store, card("street", "2.0.0", title="another"))
    catalogue = Catalogue(store, bundled=bundled, refresh_s=0)
    assert [catalogue.resolve("street@2.0.0", tenant="acme").title for _ in range(3)] == ["bundled"] * 3


def test_a_model_registered_a_moment_ago_is_found(
    store: ObjectStore, bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.registry.catalogue._FORCED_REFRESH_S", 0.0)
    catalogue = Catalogue(store, bundled=bundled, refresh_s=3600)
    with pytest.raises(UnknownModel):
        catalogue.resolve("aerial", tenant="acme")
    register(store, card())
    assert catalogue.resolve("aerial", tenant="acme").id == "aerial@1.0.0"


def test_each_card_is_read_once(store: ObjectStore, bundled: Path) -> None:
    register(store, card())
    reads = []
    plain_get = store.get
    store.get = lambda key, **where: reads.append(key) or plain_get(key, **where)  # type: ignore[method-assign,func-returns-value]
    catalogue = Catalogue(store, bundled=bundled, refresh_s=0)
    for _ in range(5):
        catalogue.resolve("aerial", tenant="acme")
    assert reads == ["models/aerial/1.0.0/card.json"]


def test_a_broken_card_is_not_listed_and_is_named_when_requested(store: ObjectStore, bundled: Path) -> None:
    register(store, card(), card("odd", "1.0.0", default_size_px=100))
    store.put("models/moved/1.0.0/card.json", json.dumps(card("aerial", "7.0.0")).encode())
    store.put("models/half/1.0.0/model.safetensors", b"the card comes last")
    store.put("models/Not A Name/1.0.0/card.json", b"{}")
    catalogue = Catalogue(store, bundled=bundled)
    assert [each.id for each in catalogue.cards(tenant="acme")] == ["aerial@1.0.0", "street@2.0.0"]
    with pytest.raises(CardError, match="default_size_px 100 is not one of"):
        catalogue.resolve("odd@1.0.0", tenant="acme")
    with pytest.raises(CardError, match=r"is that of aerial@7.0.0"):
        catalogue.resolve("moved@1.0.0", tenant="acme")
    with pytest.raises(UnknownModel):
        catalogue.resolve("half", tenant="acme")


def test_an_unknown_model_is_reported_with_those_there_are(store: ObjectStore, bundled: Path) -> None:
    catalogue = Catalogue(store, bundled=bundled)
    with pytest.raises(UnknownModel, match="did you mean 'street'"):
        catalogue.resolve("stret", tenant="acme")
    with pytest.raises(UnknownModel, match=r"no version '9.9.9'; it has 2.0.0"):
        catalogue.resolve("street@9.9.9", tenant="acme")
