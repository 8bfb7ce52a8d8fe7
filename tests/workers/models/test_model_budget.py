"""Several models in a memory budget: the least recently used is dropped, never one in use, and no caller starves."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from redis import Redis

from model_store.card import WeightsFile, load_card
from model_store.interface import System
from service.errors import WeightsError
from service.store import keys
from service.store.folder import FolderStore
from tests.waiting import until
from tests.workers.conftest import Hire
from tests.workers.fakes import TinySystem, tiny_card
from workers.generation.worker import Worker
from workers.models import cache

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture
def three(store: FolderStore, redis: Redis) -> None:
    # as many bytes as the weights would have in half precision
    weights = bytes(size_of_one() // 2)
    files = {"model.safetensors": WeightsFile(sha256=hashlib.sha256(weights).hexdigest(), bytes=len(weights))}
    for name in NAMES:
        store.put(keys.model_file(name, "1.0.0", "model.safetensors"), weights)
        store.put(keys.model_card(name, "1.0.0"), tiny_card(name=name, files=files).model_dump_json().encode())


def size_of_one() -> int:
    network = TinySystem().network
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


def names(worker: Worker) -> list[str]:
    return [loaded.card.name for loaded in worker.models.loaded]


def hired(hire: Hire, models_that_fit: float, loads: list[str] | None = None) -> Worker:
    def load(folder: Path) -> System:
        card = load_card(folder)
        if loads is not None:
            loads.append(card.name)
        return TinySystem(card)

    return hire(load=load, model_memory_bytes=int(models_that_fit * size_of_one()) + 100)


def test_the_least_recently_used_model_is_dropped_when_the_budget_is_full(hire: Hire, three: None) -> None:
    loads: list[str] = []
    worker = hired(hire, 2, loads)
    for name in ("alpha", "beta", "alpha", "gamma"):
        worker.models.get(f"{name}@1.0.0")
    assert names(worker) == ["alpha", "gamma"]
    worker.models.get("alpha@1.0.0")
    worker.models.get("beta@1.0.0")
    assert names(worker) == ["alpha", "beta"]
    assert loads == ["alpha", "beta", "gamma", "beta"]
    assert worker.models.loaded[0].memory_bytes == size_of_one()


def test_a_model_in_use_is_never_dropped_and_the_next_waits_until_it_is_free(hire: Hire, three: None) -> None:
    worker = hired(hire, 1)
    looked = threading.Event()
    got: list[str] = []

    def want_beta() -> None:
        with worker.models.use("beta@1.0.0", while_waiting=looked.set) as loaded:
            got.append(loaded.card.name)

    with worker.models.use("alpha@1.0.0") as alpha:
        waiter = threading.Thread(target=want_beta)
        waiter.start()
        assert looked.wait(10)
        assert names(worker) == ["alpha"]
        assert not got
        assert worker.models.get("alpha@1.0.0") is alpha, "others may still use it, at first"
    waiter.join(10)
    assert got == ["beta"]
    assert names(worker) == ["beta"]


def test_a_caller_that_waited_long_is_served_though_the_model_in_its_way_is_always_in_use(
    hire: Hire, three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WAIT_TIMEOUT_S", 0.3)
    worker = hired(hire, 1)
    served: list[str] = []
    over = threading.Event()

    def bulk() -> None:
        # two threads keep the model in use without a gap
        while not over.is_set():
            with worker.models.use("alpha@1.0.0"):
                over.wait(0.05)
            served.append("alpha")

    threads = [threading.Thread(target=bulk) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: len(served) > 4)
    with worker.models.use("beta@1.0.0"):
        served.append("beta")
    count = len(served)
    until(lambda: len(served) > count + 4)
    over.set()
    for thread in threads:
        thread.join(10)
    assert served.count("beta") == 1
    assert served[-1] == "alpha"


def test_a_caller_that_leaves_while_it_waits_leaves_nothing_behind(hire: Hire, three: None) -> None:
    class Left(Exception):
        pass

    def leave() -> None:
        raise Left

    worker = hired(hire, 1)
    with worker.models.use("alpha@1.0.0"), pytest.raises(Left), worker.models.use("beta@1.0.0", while_waiting=leave):
        raise AssertionError("it must not fit")
    until(lambda: names(worker) == ["beta"])
    assert worker.models.get("alpha@1.0.0").card.name == "alpha"


def test_a_model_larger_than_the_budget_is_refused_with_the_remedy(hire: Hire, three: None) -> None:
    with pytest.raises(
        WeightsError, match=f"alpha@1.0.0 takes up to {size_of_one()} bytes .* may take 1; raise TWINSET_MODEL_MEMORY"
    ):
        hire(model_memory_bytes=1).models.get("alpha@1.0.0")
    assert hired(hire, 1).models.get("alpha@1.0.0").card.name == "alpha"


def test_models_larger_in_memory_than_their_files_are_dropped_afterwards(
    hire: Hire, three: None, store: FolderStore
) -> None:
    worker = hired(hire, 1.5)
    for name in ("small", "tiny"):
        files = {"model.safetensors": WeightsFile(sha256=hashlib.sha256(b"a").hexdigest(), bytes=1)}
        store.put(keys.model_file(name, "1.0.0", "model.safetensors"), b"a")
        store.put(keys.model_card(name, "1.0.0"), tiny_card(name=name, files=files).model_dump_json().encode())
        worker.models.get(f"{name}@1.0.0")
    assert names(worker) == ["tiny"]
