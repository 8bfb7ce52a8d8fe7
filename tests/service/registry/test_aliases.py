"""Aliases and uses under races: one history without gaps, and no alias or job whose version is deleted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.errors import ModelConflict, RecordUnreadable, UnknownModel
from service.kit.ids import new_job_id
from service.registry.aliases import Aliases
from service.registry.catalogue import Catalogue
from service.registry.deletion import delete_version
from service.registry.registration import is_deleted
from service.registry.shares import Shares
from service.registry.tenant_models import TenantModels
from service.registry.uses import add_use, live_uses
from service.store import model_keys
from service.store.base import ObjectStore
from tests.service.registry.small_models import Interposed, Killed, add, blobs, stopping


def models(store: ObjectStore, tmp_path: Path, tenant: str | None = "acme") -> TenantModels:
    return TenantModels(store, Catalogue(store, bundled=tmp_path / "none", refresh_s=0.0), tenant)


def test_aliases_moved_at_once_have_one_history_without_gaps(store: ObjectStore) -> None:
    aliases = Aliases(store, "acme")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda minor: aliases.move("polyps", "stable", f"1.{minor}.0", why=None, by=None), range(6)))
    history = aliases.history("polyps", "stable")
    assert [entry.number for entry in history] == [1, 2, 3, 4, 5, 6]
    assert history[0].former is None
    assert all(later.former == earlier.version for earlier, later in pairwise(history))
    assert aliases.version("polyps", "stable") == history[-1].version
    assert dict(aliases.names("polyps")) == {"stable": history[-1].version}
    assert Aliases(store, "bolt").history("polyps", "stable") == []


def test_an_alias_whose_record_is_damaged_stands_for_nothing_by_mistake(store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, tenant="acme")
    aliases = Aliases(store, "acme")
    aliases.move("polyps", "stable", "1.0.0", why=None, by=None)
    store.put(model_keys.alias_entry("acme", "polyps", "stable", 2), b"{")
    with pytest.raises(RecordUnreadable, match=r"000002\.json"):
        models(store, tmp_path).catalogue.resolve("polyps@stable", tenant="acme")
    assert models(store, tmp_path).catalogue.resolve("polyps@1.0.0", tenant="acme").version == "1.0.0"


@pytest.mark.parametrize("at", ["before the mark", "after the mark"])
def test_of_an_alias_and_a_deletion_at_once_one_is_refused(store: ObjectStore, tmp_path: Path, at: str) -> None:
    add(store, tmp_path, tenant="acme")
    outcomes = []

    def name_it() -> None:
        try:
            models(store, tmp_path).move_alias("polyps", "stable", "1.0.0", None)
            outcomes.append("named")
        except UnknownModel:
            outcomes.append("unknown")

    def before(_: int, method: str, key: str) -> None:
        marking = method == "put" and key.endswith("deleted.json")
        if not outcomes and (marking if at == "before the mark" else ".for/" in key):
            name_it()

    racing: Any = Interposed(store, before)
    if at == "before the mark":
        with pytest.raises(ModelConflict, match="alias polyps@stable"):
            delete_version(racing, "acme", "polyps", "1.0.0", by=None)
        assert outcomes == ["named"]
        assert models(store, tmp_path).catalogue.resolve("polyps@stable", tenant="acme").version == "1.0.0"
        assert len(blobs(store)) == 1
    else:
        delete_version(racing, "acme", "polyps", "1.0.0", by=None)
        assert outcomes == ["unknown"]
        assert Aliases(store, "acme").version("polyps", "stable") is None


def test_an_alias_that_is_moved_just_as_its_version_is_marked_goes_back(store: ObjectStore, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        add(store, tmp_path, version=version, data=version.encode(), tenant="acme")
    models(store, tmp_path).move_alias("polyps", "stable", "1.0.0", "first")

    def before(_: int, method: str, key: str) -> None:
        if key.endswith("/000002.json"):
            delete_version(store, "acme", "polyps", "1.1.0", by=None)

    racing: Any = Interposed(store, before)
    with pytest.raises(UnknownModel, match=r"polyps@1\.1\.0 was deleted a moment ago"):
        models(racing, tmp_path).move_alias("polyps", "stable", "1.1.0", "next")
    history = Aliases(store, "acme").history("polyps", "stable")
    assert [(entry.version, entry.why) for entry in history] == [
        ("1.0.0", "first"),
        ("1.1.0", "next"),
        ("1.0.0", "polyps@1.1.0 was deleted at the same moment"),
    ]


def test_of_a_job_and_a_deletion_at_once_one_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, tenant="acme")
    job = new_job_id()

    def before(_: int, method: str, key: str) -> None:
        if method == "put" and key.endswith("deleted.json"):
            add_use(store, "acme:polyps@1.0.0", job)

    racing: Any = Interposed(store, before)
    with pytest.raises(ModelConflict, match="needed by a job of another tenant"):
        delete_version(racing, "acme", "polyps", "1.0.0", by=None)
    assert not is_deleted(store, "acme", "polyps", "1.0.0")
    # a user that never came to exist holds nothing for long; here it is dropped at once
    store.delete(model_keys.use("acme", "polyps", "1.0.0", job))
    delete_version(store, "acme", "polyps", "1.0.0", by=None)
    with pytest.raises(UnknownModel, match="was deleted a moment ago"):
        add_use(store, "acme:polyps@1.0.0", job)
    assert list(live_uses(store, "acme", "polyps", "1.0.0")) == []


def test_a_share_that_was_killed_halfway_shares_nothing_it_does_not_say(store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, tenant="acme")
    with pytest.raises(Killed):
        Shares(stopping(store, 1)).add("acme", "polyps", "bolt", by=None)
    found = models(store, tmp_path, "bolt").catalogue
    assert found.entries(tenant="bolt") == ()
    with pytest.raises(UnknownModel):
        found.resolve("acme:polyps", tenant="bolt")
    Shares(store).add("acme", "polyps", "bolt", by="key")
    assert [entry.key for entry in found.entries(tenant="bolt")] == ["acme:polyps@1.0.0"]
    with pytest.raises(Killed):
        Shares(stopping(store, 1)).revoke("acme", "polyps", "bolt")
    assert found.entries(tenant="bolt") == ()
    with pytest.raises(UnknownModel):
        found.resolve("acme:polyps", tenant="bolt")


def test_the_operator_names_and_deletes_models_of_all_tenants(store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, "aerial", tenant=None)
    operator = models(store, tmp_path, None)
    operator.move_alias("aerial", "stable", "1.0.0", "for everyone")
    assert operator.catalogue.resolve("aerial@stable", tenant="acme").version == "1.0.0"
    models(store, tmp_path).move_alias("aerial", "mine", "1.0.0", None)
    with pytest.raises(ModelConflict) as refused:
        operator.delete("aerial@1.0.0")
    named = [need["id"] for need in refused.value.extra["needed_by"]]
    assert sorted(named) == ["acme:aerial@mine", "aerial@stable"]
    operator.delete_alias("aerial", "stable", None)
    models(store, tmp_path).delete_alias("aerial", "mine", None)
    operator.delete("aerial@1.0.0")
    assert blobs(store) == []
    with pytest.raises(ModelConflict, match="one of all tenants already"):
        operator.share("aerial", ["acme"], with_all=False)
