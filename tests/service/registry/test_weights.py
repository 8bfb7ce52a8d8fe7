"""Weights are removed once nothing needs them, and never while something does, whatever runs at the same moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.errors import ModelConflict
from service.jobs.usage import TenantUsage
from service.registry.deletion import collect_weights, delete_version
from service.registry.registration import read_registration
from service.store import model_keys
from service.store.base import ObjectStore
from service.store.folder import FolderStore
from tests.service.registry.small_models import Interposed, Killed, add, blobs, safetensors, stopping


def sha256(store: ObjectStore) -> str:
    return blobs(store)[0].split("/")[1]


def test_weights_go_with_the_last_model_that_has_them(store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, tenant="acme")
    add(store, tmp_path, tenant="bolt")
    delete_version(store, "acme", "polyps", "1.0.0", by=None)
    assert len(blobs(store)) == 1
    assert TenantUsage(store).model_bytes("acme") == 0
    delete_version(store, "bolt", "polyps", "1.0.0", by=None)
    assert blobs(store) == []
    record, _ = add(store, tmp_path, "tissue", tenant="cord")
    assert blobs(store) == list(record.files.values())
    assert blobs(store)[0].endswith("/0001.safetensors"), "a closed generation is not used again"


@pytest.mark.parametrize("moment", ["closed", "safetensors"])
def test_a_registration_while_the_weights_are_being_removed_keeps_its_bytes(
    store: ObjectStore, tmp_path: Path, moment: str
) -> None:
    add(store, tmp_path, tenant="acme")
    second = []

    def before(_: int, method: str, key: str) -> None:
        if key.endswith(f"0000.{moment}") and not second:
            second.append(add(store, tmp_path, "tissue", tenant="bolt")[0])

    collecting: Any = Interposed(store, before)
    delete_version(collecting, "acme", "polyps", "1.0.0", by=None)
    [record] = second
    assert blobs(store) == list(record.files.values())
    assert store.get(record.files["model.safetensors"]) == safetensors(b"abcd")
    # in either order, later looks find them needed too
    collect_weights(store, sha256(store), datetime.now(UTC) + timedelta(days=2))
    assert blobs(store) == list(record.files.values())


def test_a_removal_while_a_registration_is_under_way_leaves_it_its_bytes(tmp_path: Path) -> None:
    """Before each write of the registration, the last other model with these weights is deleted."""

    def registered(at: int) -> None:
        store = FolderStore(tmp_path / f"store-{at}", link_secret=b"0" * 16, public_url="http://localhost")
        add(store, tmp_path, tenant="acme")

        def before(number: int, method: str, key: str) -> None:
            if number == at:
                delete_version(store, "acme", "polyps", "1.0.0", by=None)

        racing: Any = Interposed(store, before)
        record, _ = add(racing, tmp_path, "tissue", tenant="bolt")
        assert store.get(record.files["model.safetensors"]) == safetensors(b"abcd")
        assert blobs(store) == list(record.files.values())

    for at in range(1, 4):
        registered(at)


def test_a_deletion_killed_before_any_write_is_completed_by_the_collector(tmp_path: Path) -> None:
    def filled(number: int) -> FolderStore:
        store = FolderStore(tmp_path / f"store-{number}", link_secret=b"0" * 16, public_url="http://localhost")
        add(store, tmp_path, tenant="acme")
        return store

    counted: Any = Interposed(filled(-1), lambda *_: None)
    delete_version(counted, "acme", "polyps", "1.0.0", by=None)
    assert counted.writes == 5, "the mark, the reference, the closing, the bytes, the size"
    for after in range(counted.writes):
        store = filled(after)
        with pytest.raises(Killed):
            delete_version(stopping(store, after), "acme", "polyps", "1.0.0", by=None)
        deleted = store.head(model_keys.deletion("acme", "polyps", "1.0.0")) is not None
        assert deleted == (after > 0)
        for each in list(store.list_folders("weights/")):
            collect_weights(store, each, datetime.now(UTC) - timedelta(days=1))
        assert len(blobs(store)) == (0 if deleted else 1)


def test_what_a_stopped_registration_left_is_collected_after_a_day(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        add(stopping(store, 3), tmp_path, tenant="acme")
    now = datetime.now(UTC)
    assert collect_weights(store, sha256(store), now - timedelta(days=1)) == 0
    assert len(blobs(store)) == 1
    assert TenantUsage(store).model_bytes("acme") == len(safetensors(b"abcd"))
    assert collect_weights(store, sha256(store), now + timedelta(days=1)) == 1
    assert blobs(store) == []
    assert TenantUsage(store).model_bytes("acme") == 0


def test_a_model_that_another_was_trained_from_is_not_deleted_before_it(store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, tenant="acme")
    add(store, tmp_path, "tuned", data=b"tune", tenant="acme", base="acme:polyps@1.0.0")
    add(store, tmp_path, "theirs", data=b"them", tenant="bolt", base="acme:polyps@1.0.0")
    with pytest.raises(ModelConflict) as refused:
        delete_version(store, "acme", "polyps", "1.0.0", by=None)
    needed = sorted(refused.value.extra["needed_by"], key=lambda need: need["id"] or "")
    assert needed == [{"kind": "model", "id": None}, {"kind": "model", "id": "acme:tuned@1.0.0"}]
    assert "a model of another tenant" in refused.value.detail
    assert "bolt" not in refused.value.detail
    for owner, name in (("acme", "tuned"), ("bolt", "theirs"), ("acme", "polyps")):
        delete_version(store, owner, name, "1.0.0", by=None)
    assert blobs(store) == []
    record = read_registration(store, "acme", "polyps", "1.0.0")
    assert record is not None
    assert record.card.name == "polyps", "the card stays for what was made with it"
