"""Copies of models on disk: within a budget, the least recently used go, and none that a process uses."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from model_store.card import ModelCard, load_card
from model_store.interface import System
from service.registry.register import register
from service.store.base import ObjectStore
from service.store.folder import FolderStore
from tests.service.registry.small_models import add, card_of, safetensors
from tests.workers.conftest import Hire
from tests.workers.fakes import TinySystem, tiny_card
from workers.models.disk_cache import DiskCache
from workers.models.files import ModelFiles


def filled(cache: DiskCache, key: str, size: int, used_at: int) -> Path:
    with cache.hold(key) as place:
        (place / "model.safetensors").write_bytes(bytes(size))
        (place / "card.json").touch()
        os.utime(place / "card.json", (used_at, used_at))
    return place


def names(cache: DiskCache) -> list[str]:
    return sorted("/".join(path.relative_to(cache.folder).parts) for path in cache.folder.glob("*/*/*"))


def test_the_least_recently_used_copies_go_until_the_new_one_fits(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 250)
    for number, key in enumerate(("a@1.0.0", "acme:a@1.0.0", "b@1.0.0")):
        filled(cache, key, 80, 1000 + number)
    assert cache.make_room(10) == []
    with cache.hold("a@1.0.0"):
        pass  # used a moment ago
    assert cache.make_room(80) == [cache.place("acme:a@1.0.0")]
    assert names(cache) == ["_shared/a/1.0.0", "_shared/b/1.0.0"]
    assert cache.make_room(250) == [cache.place("b@1.0.0"), cache.place("a@1.0.0")]


def test_a_copy_that_was_never_completed_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    filled(cache, "a@1.0.0", 60, 1)
    with cache.hold("b@1.0.0") as place:
        (place / ".model.safetensors.part").write_bytes(bytes(60))
    assert cache.make_room(0) == [cache.place("b@1.0.0")]


def _hold(folder: Path, key: str, pipe: Connection) -> None:
    with DiskCache(folder, 0).hold(key):
        pipe.send("held")
        pipe.recv()


def test_a_copy_that_another_process_uses_stays(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    filled(cache, "a@1.0.0", 60, 1)
    filled(cache, "b@1.0.0", 60, 2)
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=_hold, args=(tmp_path, "a@1.0.0", there))
    process.start()
    try:
        assert here.recv() == "held"
        assert cache.make_room(100) == [cache.place("b@1.0.0")]
        assert names(cache) == ["_shared/a/1.0.0"]
    finally:
        here.send("done")
        process.join(30)
    assert cache.make_room(100) == [cache.place("a@1.0.0")]


def test_weights_are_fetched_as_asked_for_within_the_budget(tmp_path: Path, store: FolderStore) -> None:
    size = len(safetensors(bytes(100_000)))
    for name in ("one", "two", "three"):
        add(store, tmp_path, name, data=name.encode().ljust(100_000), tenant="acme")
    budget = 2 * size + 10_000
    files = ModelFiles(store, DiskCache(tmp_path / "cache", budget), lambda folder: TinySystem(load_card(folder)))
    reads: list[str] = []
    stream = store.stream
    store.stream = lambda key, **options: (reads.append(key), stream(key, **options))[1]  # type: ignore[method-assign]
    for name in ("one", "two", "one", "three", "one", "two"):
        assert files.load(f"acme:{name}@1.0.0").card.name == name
        assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.safetensors")) <= budget
    assert len(reads) == 4, "two was dropped for three, and fetched again"


def registered(store: ObjectStore, folder: Path, owner: str | None, data: bytes) -> ModelCard:
    weights = safetensors(data)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    files = card_of("x", "1.0.0", weights).files
    card = tiny_card(name="same", title=f"of {owner}", files=files)
    register(store, card, {"model.safetensors": folder / "model.safetensors"}, tenant=owner)
    return card


def test_models_of_two_tenants_with_one_name_and_version_never_mix(
    hire: Hire, store: FolderStore, tmp_path: Path
) -> None:
    seen: list[bytes] = []

    def loading() -> Callable[[Path], System]:
        def load(folder: Path) -> System:
            seen.append((folder / "model.safetensors").read_bytes())
            return TinySystem(load_card(folder))

        return load

    for number, owner in enumerate(("acme", "bolt")):
        registered(store, tmp_path / owner, owner, bytes([number]))
    worker = hire(load=loading(), batch_shape=0)
    found = {owner: worker.models.get(f"{owner}:same@1.0.0") for owner in ("acme", "bolt")}
    assert seen == [safetensors(b"\0"), safetensors(b"\1")]
    assert {owner: model.card.title for owner, model in found.items()} == {"acme": "of acme", "bolt": "of bolt"}
    assert found["acme"].engine_model is not found["bolt"].engine_model
    assert [model.key for model in worker.models.loaded] == ["acme:same@1.0.0", "bolt:same@1.0.0"]
    assert sorted(store.list_folders("shapes/")) == ["acme", "bolt"]
    assert worker.models.get("acme:same@1.0.0") is found["acme"]
