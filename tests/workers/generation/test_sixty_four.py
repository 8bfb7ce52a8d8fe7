"""64 samples of mixed kinds, in four groupings and orders of arrival, give identical PNG bytes."""

from __future__ import annotations

import hashlib
import random
import time

import pytest
import torch
from redis import Redis

from model_store.interface import ConditionRequest
from service.store import keys
from service.store.folder import FolderStore
from tests.workers.conftest import Hire
from tests.workers.fakes import TinySystem, tiny_spec
from workers.generation.pipeline import InFlightSample
from workers.generation.worker import Worker

Sample = tuple[int, int]
"""(number of the job, index in it)."""


def kinds(draw: random.Random) -> list[dict[str, object]]:
    """Sixteen jobs that differ in everything in which samples can differ."""
    return [
        {
            "classes": draw.choice([("water",), ("land", "road"), ("land", "water", "road")]),
            "prompt": None,
            "seed": draw.getrandbits(50),
            "steps": draw.choice([2, 3, 5, 8, 13]),
            "guidance_scale": draw.choice([0.0, 1.0, 1.5, 4.0]),
            "eta": draw.choice([0.0, 0.0, 0.4, 1.0]),
            "tenant": draw.choice(["one", "two"]),
            "priority": draw.choice(["normal", "interactive"]),
            "count": 4,
        }
        for _ in range(14)
    ] + [
        {"classes": None, "prompt": text, "seed": 5 + number, "steps": 4 + number, "guidance_scale": 2.0, "count": 4}
        for number, text in enumerate(("a road by the water", "dry land"))
    ]


def make(
    worker: Worker, store: FolderStore, order: list[Sample], groups: int, draw: random.Random
) -> dict[Sample, tuple[str, str]]:
    """Sends the samples in ``order``, a group at a time, and returns the sha256 of each one's image and mask."""
    specs = [tiny_spec(**kind) for kind in kinds(random.Random(3))]
    model = worker.models.get(specs[0].model)
    makings: dict[Sample, InFlightSample] = {}
    for start in range(0, len(order), groups):
        for kind, index in order[start : start + groups]:
            spec = specs[kind]
            in_flight = worker.pipeline.start(
                model, spec, index, ConditionRequest(prompt=spec.prompt, classes=spec.classes), None
            )
            assert in_flight is not None
            makings[kind, index] = in_flight
        time.sleep(draw.random() * 0.02)
        if draw.random() < 0.5:
            makings[order[start]].item.result(60)
    found = {}
    for (kind, index), in_flight in makings.items():
        item, job = in_flight.item.result(60), specs[kind].job
        assert item.error is None
        assert [item.image_key, item.mask_key] == [
            keys.job_image(job, index, item.image_sha256),
            keys.job_mask(job, index, item.mask_sha256 or ""),
        ]
        files = [store.get(item.image_key), store.get(item.mask_key or "")]
        assert [item.image_sha256, item.mask_sha256] == [hashlib.sha256(data).hexdigest() for data in files]
        found[kind, index] = (item.image_sha256, item.mask_sha256)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_64_samples_in_four_groupings_and_orders_give_identical_png_bytes(
    hire: Hire, redis: Redis, store: FolderStore, dtype: str
) -> None:
    everything = [(kind, index) for kind in range(16) for index in range(4)]
    load = lambda _: TinySystem(dtype=getattr(torch, dtype))  # noqa: E731
    alone = make(hire(load=load), store, everything, 1, random.Random(0))
    assert len(alone) == 64
    assert len(set(alone.values())) == 64
    worker = hire(load=load)
    for order, groups in ((1, 64), (2, 7), (3, 16)):
        draw = random.Random(order)
        shuffled = draw.sample(everything, 64)
        assert make(worker, store, shuffled, groups, draw) == alone
    assert worker.engine.preemptions > 0, "some samples were preempted on the way"
