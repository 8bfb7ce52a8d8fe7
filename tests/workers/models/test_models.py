"""Loading models: fetched from the store, checked by sha256, repaired on disk, loaded once."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from redis import Redis

from model_store.card import load_card
from model_store.interface import (
    ConditionRequest,
    GuidanceInputs,
    MaskInput,
    System,
)
from service.errors import CardError, UnknownModel, WeightsError
from service.store import keys
from service.store.folder import FolderStore
from tests.workers.conftest import Hire, load_tiny
from tests.workers.fakes import WEIGHTS, WEIGHTS_SHA256, TinySystem, tiny_card
from workers.generation.worker import Worker


def test_a_model_is_fetched_from_the_store_once_and_loaded_once_for_many_threads(hire: Hire) -> None:
    loads: list[Path] = []

    def load(folder: Path) -> System:
        loads.append(folder)
        return load_tiny(folder)

    worker = hire(load=load)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(worker.models.get("tiny@1.0.0"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(set(map(id, found))) == 1
    assert (loads[0] / "model.safetensors").read_bytes() == WEIGHTS
    assert loads[0] == worker.settings.model_cache_dir / "_shared" / "tiny" / "1.0.0"


def test_a_damaged_copy_on_disk_is_fetched_again(hire: Hire) -> None:
    worker = hire()
    folder = worker.settings.model_cache_dir / "_shared" / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    for damaged in (b"t1ny", b"tin"):
        (folder / "model.safetensors").write_bytes(damaged)
        assert hire().models.get("tiny@1.0.0").card.id == "tiny@1.0.0"
        assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_weights_that_are_damaged_in_the_store_are_refused(worker: Worker, store: FolderStore) -> None:
    store.put(keys.model_file("tiny", "1.0.0", "model.safetensors"), b"t1ny")
    with pytest.raises(WeightsError, match=f"the card of tiny@1.0.0 says {WEIGHTS_SHA256}"):
        worker.models.get("tiny@1.0.0")


def test_a_missing_model_an_invalid_card_and_missing_weights_are_named(worker: Worker, store: FolderStore) -> None:
    with pytest.raises(UnknownModel, match=r"tiny@2\.0\.0 is neither bundled nor registered"):
        worker.models.get("tiny@2.0.0")
    store.put(keys.model_card("odd", "1.0.0"), b"{}")
    with pytest.raises(CardError, match=r"odd@1\.0\.0 cannot be loaded"):
        worker.models.get("odd@1.0.0")
    store.put(keys.model_card("bare", "1.0.0"), tiny_card(name="bare").model_dump_json().encode())
    with pytest.raises(WeightsError, match=r"models/bare/1\.0\.0/model\.safetensors is not in the store"):
        worker.models.get("bare@1.0.0")


def test_a_condition_is_encoded_once_and_alone(hire: Hire, redis: Redis) -> None:
    asked: list[ConditionRequest] = []

    class Asked(TinySystem):
        def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
            asked.append(request)
            return super().guidance_inputs(request)

    model = hire(load=lambda folder: Asked(load_card(folder))).models.get("tiny@1.0.0")
    road = ConditionRequest(classes=("road",))
    first = model.guidance_inputs(road)
    assert model.guidance_inputs(ConditionRequest(classes=("road",))) is first
    assert not torch.equal(first.cond["class"], model.guidance_inputs(ConditionRequest(prompt="a road")).cond["class"])
    masks = [MaskInput.of(np.full((8, 8), value, dtype=np.uint8)) for value in (0, 1, 0)]
    assert masks[0] == masks[2] != masks[1]
    assert asked == [road, ConditionRequest(prompt="a road")]
