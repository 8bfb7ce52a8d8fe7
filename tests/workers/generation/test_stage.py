"""Stages: bounded queues, a slow store that holds back decoding but not the engine, and flat memory."""

from __future__ import annotations

import gc
import threading
import tracemalloc

import pytest
import torch
from redis import Redis

from model_store.interface import ConditionRequest, GuidanceInputs
from service.store.base import ObjectInfo
from service.store.folder import FolderStore
from tests.waiting import until
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, TinySystem, tiny_spec
from tests.workers.generation.test_chunk import accept, work
from workers.generation.stage import Stage


def test_a_full_stage_makes_its_callers_wait() -> None:
    stage = Stage("store", 1, bound=2)
    gate, put = threading.Event(), []

    def fill() -> None:
        for number in range(5):
            stage.put(lambda: gate.wait(10) and None)
            put.append(number)

    filler = threading.Thread(target=fill)
    filler.start()
    # one runs, two wait, and the fourth must wait outside
    until(lambda: (stage.working, stage.waiting) == (1, 2))
    assert put == [0, 1, 2]
    gate.set()
    filler.join(10)
    stage.close()
    assert put == [0, 1, 2, 3, 4]
    assert (stage.waiting, stage.working) == (0, 0)
    with pytest.raises(RuntimeError):
        stage.put(lambda: None)
    assert stage.waiting == 0


def test_tenants_take_turns_in_a_stage() -> None:
    stage, begun, gate, order = Stage("decode", 1), threading.Event(), threading.Event(), []
    stage.put(lambda: (begun.set(), gate.wait(10), None)[-1], "acme")
    assert begun.wait(10)
    for number in range(4):
        stage.put(lambda number=number: order.append(f"a{number}"), "acme")
    for number in range(2):
        stage.put(lambda number=number: order.append(f"b{number}"), "birch")
    gate.set()
    stage.close()
    assert order == ["a0", "b0", "a1", "b1", "a2", "a3"]


class SlowStore(FolderStore):
    """A store that accepts images only once the gate is open."""

    gate: threading.Event

    def put(self, key: str, data: bytes, **options: object) -> ObjectInfo:
        if key.endswith(".png"):
            assert self.gate.wait(30)
        return super().put(key, data, **options)


def test_a_store_that_hangs_holds_back_decoding_and_not_the_engine(
    hire: Hire, redis: Redis, store: FolderStore
) -> None:
    slow = SlowStore(store.root, link_secret=b"0" * 16, public_url="http://127.0.0.1:8000")
    slow.gate = threading.Event()
    worker = hire(store=slow)
    spec = tiny_spec(count=100, chunk_size=100)
    model = worker.models.get(spec.model)
    request = ConditionRequest(classes=("water",))
    makings = [worker.pipeline.start(model, spec, index, request, None) for index in range(100)]
    pipeline = worker.pipeline
    # 8 are being stored, 16 wait, one is in the decoder; the rest are latents
    until(lambda: (pipeline.storing.working, pipeline.storing.waiting, pipeline.decoding.waiting) == (8, 16, 75))
    assert worker.engine.queue(model.engine_model) == (0, 0), "the engine has finished all its work"
    assert pipeline.occupancy == (100, 256)
    slow.gate.set()
    assert all(in_flight is not None and in_flight.item.result(30).error is None for in_flight in makings)
    until(lambda: pipeline.occupancy == (0, 256))


def test_a_sample_that_the_model_refuses_has_its_reason_and_no_other_is_affected(hire: Hire, post: Post) -> None:
    class Choosy(TinySystem):
        asked = 0

        def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
            Choosy.asked += 1
            if Choosy.asked == 1:
                raise ValueError("the mask is 9 x 8 px; tiny takes 8 x 8")
            return super().guidance_inputs(request)

    worker = hire(load=lambda _: Choosy())
    spec = accept(worker, post, count=4, chunk_size=4)
    work(worker, post)
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    assert [item.error for item in record.items] == ["the mask is 9 x 8 px; tiny takes 8 x 8", None, None, None]


def test_a_thousand_samples_leak_no_memory(hire: Hire, post: Post) -> None:
    worker = hire()

    def run(count: int) -> tuple[int, int, int]:
        """Tensors alive after so many samples, the bytes in them, and the bytes that Python and numpy hold."""
        accept(worker, post, count=count, chunk_size=50, steps=2, guidance_scale=1.0)
        work(worker, post)
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
        return len(tensors), sum(tensor.nbytes for tensor in tensors), tracemalloc.get_traced_memory()[0]

    run(100)
    tracemalloc.start()
    try:
        settled, grown = run(100), run(1000)
    finally:
        tracemalloc.stop()
    # a thousand samples have 1.5 MB of latents, 6 MB of noise and gathered rows; pydantic keeps some of the strings it
    # reads
    assert grown[0] <= settled[0] + 5
    assert grown[1] <= settled[1] + 50_000
    assert grown[2] <= settled[2] + 500_000
    assert worker.pipeline.occupancy == (0, 256)
