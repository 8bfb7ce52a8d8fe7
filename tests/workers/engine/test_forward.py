"""The ways of a forward: eager, compiled or as a CUDA graph, and what happens if it cannot be built."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from redis import Redis

from model_store.interface import ConditionRequest
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, TinySystem
from tests.workers.generation.test_chunk import accept, work
from workers.engine import Engine, EngineModel, SampleRequest
from workers.engine.forward import ForwardClock, ForwardWay, GraphedForward

HEADERS = Path(sysconfig.get_paths()["include"], "Python.h")
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or not HEADERS.is_file(),
    reason="torch.compile needs a C++ compiler and Python's headers",
)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(cpu_threads=1)
    yield engine
    engine.stop()


def made(engine: Engine, model: EngineModel) -> list[np.ndarray]:
    requests = [
        SampleRequest(seed, model.system.guidance_inputs(ConditionRequest(classes=("water",))), 4, scale, eta)
        for seed, scale, eta in ((1, 1.0, 0.0), (2, 3.0, 0.0), (3, 2.0, 1.0))
    ]
    return [future.result(300).cpu().numpy() for future in engine.submit(model, requests)]


def test_the_ways_have_names_in_the_record() -> None:
    assert [str(ForwardWay(*way)) for way in ((), (True,), (False, True), (True, True))] == [
        "eager",
        "compiled",
        "cuda graph",
        "compiled, cuda graph",
    ]


@needs_compiler
def test_a_compiled_forward_makes_the_same_samples_to_rounding_and_the_record_says_how(
    hire: Hire, post: Post, engine: Engine
) -> None:
    plain = made(engine, EngineModel(TinySystem(), 4))
    worker = hire(compile=True, batch_shape=4)
    loaded = worker.models.get("tiny@1.0.0")
    assert loaded.build["forward"] == "compiled"
    for one, other in zip(plain, made(worker.engine, loaded.engine_model), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    spec = accept(worker, post, count=2, chunk_size=2)
    work(worker, post)
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    assert record.failed == 0
    assert record.build["forward"] == "compiled"


def test_a_forward_that_cannot_be_built_runs_eagerly_and_the_record_says_so(
    hire: Hire, redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(torch, "compile", no_compiler)
    worker = hire(compile=True)
    loaded = worker.models.get("tiny@1.0.0")
    assert loaded.build["forward"] == "eager"
    assert "could not be built as compiled" in caplog.text
    assert all(np.isfinite(x).all() for x in made(worker.engine, loaded.engine_model))


def test_out_of_memory_while_a_forward_is_built_halves_the_shape(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = TinySystem()

    def compile_for(forward: object, **_: object) -> object:
        def run(x: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
            if len(x) > 4:
                raise torch.OutOfMemoryError("no memory for eight rows")
            return system.network(x, t, condition["class"])  # type: ignore[index]

        return run

    monkeypatch.setattr(torch, "compile", compile_for)
    model = EngineModel(system, 8, way=ForwardWay(compiled=True))
    expected = made(engine, EngineModel(TinySystem(), 4))
    assert [x.tobytes() for x in made(engine, model)] == [x.tobytes() for x in expected]
    assert (model.rows, model.halved) == (4, True)


def test_the_clock_times_each_forward_once(engine: Engine) -> None:
    clock, system = ForwardClock(torch.device("cpu")), TinySystem()
    x, t = torch.zeros(2, 6, 8, 8), torch.zeros(2, dtype=torch.int64)
    condition = {"class": torch.zeros(2, 8)}
    for _ in range(3):
        assert torch.equal(clock.run(system.forward, x, t, condition), system.forward(x, t, condition))
    taken = clock.take()
    assert len(taken) == 3
    assert all(seconds > 0.0 for seconds in taken)
    assert clock.take() == []


@pytest.mark.gpu
def test_a_cuda_graph_gives_the_forwards_output() -> None:
    system = TinySystem()
    system.device = torch.device("cuda")
    system.network.cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    inputs = [
        (
            torch.randn(4, 6, 8, 8, device="cuda", generator=generator),
            torch.randint(0, 1000, (4,), device="cuda", generator=generator),
            {"class": torch.randn(4, 8, device="cuda", generator=generator)},
        )
        for _ in range(3)
    ]
    with torch.inference_mode():
        example = tuple(
            torch.clone(part) if isinstance(part, torch.Tensor) else {k: v.clone() for k, v in part.items()}
            for part in inputs[0]
        )
        graphed = GraphedForward(system.forward, example)  # type: ignore[arg-type]
        for x, t, condition in (*inputs, inputs[0]):
            torch.testing.assert_close(graphed(x, t, condition), system.forward(x, t, condition))
