"""Registration: whole or not at all, weights once for all tenants, and a version never twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.errors import ModelConflict, UnknownModel, WeightsError
from service.jobs.usage import TenantUsage
from service.registry.catalogue import Catalogue
from service.registry.deletion import delete_version
from service.registry.register import register
from service.registry.versions import next_version, reserve_version
from service.store import model_keys
from service.store.base import ObjectStore
from service.store.folder import FolderStore
from tests.service.registry.small_models import (
    Interposed,
    Killed,
    add,
    blobs,
    card_of,
    safetensors,
    stopping,
    write_model,
)


def catalogue(store: ObjectStore, tmp_path: Path) -> Catalogue:
    return Catalogue(store, bundled=tmp_path / "none", refresh_s=0.0)


def references(store: ObjectStore) -> list[str]:
    return [info.key.partition(".for/")[2] for info in store.list("weights/") if ".for/" in info.key]


def test_the_same_weights_of_two_tenants_are_stored_once_and_count_for_both(store: ObjectStore, tmp_path: Path) -> None:
    one, first = add(store, tmp_path, tenant="acme")
    two, second = add(store, tmp_path, "tissue", "3.0.0", tenant="bolt")
    add(store, tmp_path, version="1.1.0", tenant="acme")
    assert (first, second) == (True, True)
    assert len(blobs(store)) == 1
    assert one.files == two.files == {"model.safetensors": blobs(store)[0]}
    assert store.get(blobs(store)[0]) == safetensors(b"abcd")
    assert references(store) == ["acme/polyps/1.0.0", "acme/polyps/1.1.0", "bolt/tissue/3.0.0"]
    size = len(safetensors(b"abcd"))
    assert [TenantUsage(store).model_bytes(tenant) for tenant in ("acme", "bolt", "cord")] == [2 * size, size, 0]
    assert add(store, tmp_path, tenant="acme") == (one, False)
    assert TenantUsage(store).model_bytes("acme") == 2 * size


def test_a_version_never_changes_and_is_never_given_twice(store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, tenant="acme")
    with pytest.raises(ModelConflict, match=r"polyps@1\.0\.0 is already registered, .* higher version"):
        add(store, tmp_path, data=b"other", tenant="acme")
    with pytest.raises(ModelConflict, match="already registered"):
        add(store, tmp_path, tenant="acme", changes={"title": "Another"})
    add(store, tmp_path, data=b"other", tenant="bolt")
    assert next_version(store, "polyps", tenant="acme") == "1.1.0"
    delete_version(store, "acme", "polyps", "1.0.0", by=None)
    with pytest.raises(ModelConflict, match="was deleted, and a version is never given twice"):
        add(store, tmp_path, tenant="acme")
    assert next_version(store, "polyps", tenant="acme") == "1.1.0"
    assert catalogue(store, tmp_path).resolve("polyps", tenant="bolt").id == "polyps@1.0.0"


def test_a_registration_killed_before_any_write_leaves_all_or_nothing(tmp_path: Path) -> None:
    def empty(number: int) -> FolderStore:
        return FolderStore(tmp_path / f"store-{number}", link_secret=b"0" * 16, public_url="http://localhost")

    counted = Interposed(empty(-1), lambda *_: None)
    add(counted, tmp_path, tenant="acme")  # type: ignore[arg-type]
    assert counted.writes == 4, "its size, its reference, its weights, its registration"
    for after in range(counted.writes + 1):
        store = empty(after)
        if after < counted.writes:
            with pytest.raises(Killed):
                add(stopping(store, after), tmp_path, tenant="acme")
            assert catalogue(store, tmp_path).cards(tenant="acme") == ()
            assert next_version(store, "polyps", tenant="acme") == "1.0.0"
        record, is_new = add(store, tmp_path, tenant="acme")
        assert is_new
        assert len(blobs(store)) == 1
        assert catalogue(store, tmp_path).resolve("polyps", tenant="acme") == record.card


def test_of_two_registrations_at_once_one_is_new_and_the_other_the_same_or_refused(
    store: ObjectStore, tmp_path: Path
) -> None:
    for version, data in (("1.0.0", (b"same", b"same")), ("2.0.0", (b"this", b"that"))):
        barrier = threading.Barrier(2)

        def register(number: int, version: str = version, data: Any = data, barrier: Any = barrier) -> object:
            def wait(_: int, method: str, key: str) -> None:
                if key.endswith("registration.json"):
                    barrier.wait(10)

            try:
                racing: Any = Interposed(store, wait)
                return add(racing, tmp_path / str(number), version=version, data=data[number], tenant="acme")[1]
            except ModelConflict:
                return "refused"

        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(register, range(2)))
        assert sorted(map(str, outcomes)) == (["False", "True"] if version == "1.0.0" else ["True", "refused"])
    # what the refused one stored is no longer referred to, and counted once
    assert sorted(references(store)) == ["acme/polyps/1.0.0", "acme/polyps/2.0.0"]
    assert TenantUsage(store).model_bytes("acme") == 2 * len(safetensors(b"same"))


def test_each_run_gets_a_version_of_its_own(store: ObjectStore, tmp_path: Path) -> None:
    runs = [f"run-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(lambda run: reserve_version(store, "polyps", tenant="acme", run=run), runs))
    assert sorted(versions) == [f"1.{minor}.0" for minor in range(6)]
    assert [reserve_version(store, "polyps", tenant="acme", run=run) for run in runs] == versions
    mine = versions[2]
    with pytest.raises(ModelConflict, match=f"{mine} is reserved for run-2"):
        add(store, tmp_path, version=mine, tenant="acme")
    assert add(store, tmp_path, version=mine, tenant="acme", by="run-2")[1]
    assert next_version(store, "polyps", tenant="acme") == "1.6.0"
    assert next_version(store, "polyps", tenant="bolt") == "1.0.0"


def test_a_tenants_name_may_not_be_one_of_all_tenants(store: ObjectStore, tmp_path: Path) -> None:
    bundled = tmp_path / "bundled"
    write_model(bundled / "street" / "2.0.0", "street", "2.0.0")
    add(store, tmp_path, "aerial", tenant=None)
    store.put("models/former/1.0.0/card.json", card_of("former", "1.0.0", b"").model_dump_json().encode())
    for name in ("street", "aerial", "former"):
        with pytest.raises(ModelConflict, match="is the name of a model of all tenants; give yours another name"):
            add(store, tmp_path, name, "9.0.0", tenant="acme", bundled=bundled)
    with pytest.raises(ModelConflict, match=r"street@2\.0\.0 is bundled"):
        add(store, tmp_path, "street", "2.0.0", tenant=None, bundled=bundled)
    with pytest.raises(ModelConflict, match=r"former@1\.0\.0 is already registered"):
        add(store, tmp_path, "former", "1.0.0", tenant=None)
    # where the operator comes later, the tenant's name still means its own
    add(store, tmp_path, "later", "1.0.0", b"mine", tenant="acme")
    add(store, tmp_path, "later", "5.0.0", b"everyone's", tenant=None)
    found = catalogue(store, tmp_path)
    assert found.find("later", tenant="acme").key == "acme:later@1.0.0"
    assert found.find("later", tenant="bolt").key == "later@5.0.0"


def test_other_tenants_models_are_as_unknown_as_none(store: ObjectStore, tmp_path: Path) -> None:
    record, _ = add(store, tmp_path, "secret", tenant="acme")
    found = catalogue(store, tmp_path)
    assert [entry.key for entry in found.entries(tenant="acme")] == ["acme:secret@1.0.0"]
    assert found.entries(tenant="bolt") == found.entries(tenant=None) == ()
    for ref in ("{}", "{}@1.0.0", "{}@stable", "acme:{}", "acme:{}@1.0.0", "nobody:{}@1.0.0"):
        answers = []
        for name in ("secret", "absent"):
            with pytest.raises(UnknownModel) as refused:
                found.resolve(ref.format(name), tenant="bolt")
            answers.append((refused.value.detail.replace(name, "..."), refused.value.extra))
        assert answers[0] == answers[1]
    # the hash of another's weights gives nothing either: the bytes must come along
    lacking = tmp_path / "lacking"
    card = write_model(lacking, "mine")
    assert card.files["model.safetensors"].sha256 == record.card.files["model.safetensors"].sha256
    (lacking / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="does not exist, but the card names it"):
        register(store, card, {"model.safetensors": lacking / "model.safetensors"}, tenant="bolt")
    assert references(store) == ["acme/secret/1.0.0"]


def test_a_candidate_is_used_by_its_version_alone_until_it_is_promoted(store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, tenant="acme", candidate=True)
    found = catalogue(store, tmp_path)
    assert found.find("polyps@1.0.0", tenant="acme").candidate
    with pytest.raises(UnknownModel, match=r"has candidates only: 1\.0\.0; name one as polyps@1\.0\.0, or promote it"):
        found.resolve("polyps", tenant="acme")
    add(store, tmp_path, version="0.9.0", data=b"old", tenant="acme")
    assert found.resolve("polyps", tenant="acme").version == "0.9.0"
    store.put(model_keys.promotion("acme", "polyps", "1.0.0"), b"{}")
    assert found.resolve("polyps", tenant="acme").version == "1.0.0"
