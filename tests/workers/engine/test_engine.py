"""The engine: bits that do not depend on other samples, the arithmetic of diffusers, samples that come and go."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait

import numpy as np
import pytest
import torch
from torch import Tensor

from model_store.diffusion.noise import SampleNoise
from model_store.interface import ConditionRequest, GuidanceInputs, stack_conditions
from tests.model_store.diffusion.reference_ddim import reference_scheduler
from tests.workers.fakes import TinySystem, tiny_card
from workers.engine import Engine, EngineModel, EngineStopped, SampleFailed, SampleRequest


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(cpu_threads=1)
    yield engine
    engine.stop()


def model_of(system: TinySystem, rows: int = 8) -> EngineModel:
    return EngineModel(system, rows)


def request_for(system: TinySystem, number: int, **changes: object) -> SampleRequest:
    """A sample with its own condition, step count, guidance and eta, all drawn from ``number``."""
    draw = random.Random(number)
    classes = (("water",), ("land", "road"), ("land", "water", "road"))[number % 3]
    values = {
        "seed": draw.getrandbits(53),
        "guidance_inputs": system.guidance_inputs(ConditionRequest(classes=classes)),
        "steps": draw.choice([3, 5, 7, 10]),
        "guidance_scale": draw.choice([1.0, 0.0, 2.5]),
        "eta": draw.choice([0.0, 0.0, 1.0, 0.5]),
        "group": f"job-{number % 4}",
    }
    return SampleRequest(**(values | changes))


def bits(result: Tensor) -> bytes:
    return np.ascontiguousarray(result.numpy()).tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_samples_bits_do_not_depend_on_other_samples_its_slot_or_its_time_of_arrival(
    engine: Engine, dtype: torch.dtype
) -> None:
    system = TinySystem(dtype=dtype)
    model = model_of(system)
    requests = [request_for(system, number) for number in range(24)]
    alone = [bits(engine.submit(model, [request])[0].result(30)) for request in requests]
    assert len(set(alone)) == len(requests)

    together = [bits(future.result(30)) for future in engine.submit(model, requests)]
    assert together == alone

    for order in range(3):
        shuffled = list(range(24))
        random.Random(order).shuffle(shuffled)
        futures: dict[int, Future[Tensor]] = {}
        for start in range(0, 24, 5):
            part = shuffled[start : start + 5]
            futures |= dict(zip(part, engine.submit(model, [requests[n] for n in part]), strict=True))
            futures[part[0]].result(30)
        assert [bits(futures[n].result(30)) for n in range(24)] == alone


@pytest.mark.parametrize("steps", [10, 7, 30])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_it_equals_a_loop_of_diffusers_over_one_sample_at_a_time(
    engine: Engine, steps: int, eta: float, prediction: str
) -> None:
    convention = tiny_card().sampler.model_copy(update={"prediction_type": prediction})
    system = TinySystem(tiny_card(sampler=convention))
    requests = [request_for(system, n, steps=steps, eta=eta, guidance_scale=3.0) for n in range(3)]
    made = [future.result(30) for future in engine.submit(model_of(system), requests)]
    for request, result in zip(requests, made, strict=True):
        expected = one_at_a_time(system, request)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def one_at_a_time(system: TinySystem, request: SampleRequest) -> Tensor:
    scheduler = reference_scheduler(system.card.sampler)
    scheduler.set_timesteps(request.steps)
    stream = SampleNoise(request.seed, system.sample_shape)
    x = stream.draw()[None]
    condition, null = (
        stack_conditions([side]) for side in (request.guidance_inputs.cond, request.guidance_inputs.uncond)
    )
    for t in scheduler.timesteps:
        cond_out = system.forward(x, t[None], condition)
        null_out = system.forward(x, t[None], null)
        output = null_out + request.guidance_scale * (cond_out - null_out)
        noise = stream.draw()[None] if request.eta > 0 else None
        x = scheduler.step(output, t, x, eta=request.eta, variance_noise=noise).prev_sample
    return x[0]


def test_a_sample_of_equal_branches_takes_one_row_and_every_forward_has_the_canonical_shape(engine: Engine) -> None:
    system = TinySystem()
    same = request_for(system, 1, guidance_scale=1.0, steps=5)
    futures = engine.submit(model_of(system, rows=4), [same] * 4)
    wait(futures, 30)
    assert system.forwards == [4] * 5
    assert engine.counts == (5, 20)

    nothing = system.guidance_inputs(ConditionRequest(classes=("water",))).uncond
    null = request_for(system, 1, guidance_inputs=GuidanceInputs(nothing, nothing), guidance_scale=7.0, steps=5)
    unguided = request_for(
        system, 1, guidance_inputs=GuidanceInputs(nothing, nothing), guidance_scale=1.0, steps=5, seed=null.seed
    )
    first, second = engine.submit(model_of(system, rows=4), [null, unguided])
    assert bits(first.result(30)) == bits(second.result(30))


def test_a_nan_fails_one_sample_with_its_reason_and_no_other(engine: Engine) -> None:
    system = TinySystem()
    model = model_of(system)
    sound = [request_for(system, number, steps=6, guidance_scale=2.0) for number in range(3)]
    alone = [bits(future.result(30)) for future in engine.submit(model, sound)]
    broken = request_for(
        system, 9, guidance_inputs=system.guidance_inputs(ConditionRequest(prompt="nan")), steps=6, guidance_scale=2.0
    )
    bad, *good = engine.submit(model, [broken, *sound])
    with pytest.raises(SampleFailed, match="not finite after step 1 of 6"):
        bad.result(30)
    assert [bits(future.result(30)) for future in good] == alone


def test_a_cancelled_sample_leaves_before_the_next_step(engine: Engine) -> None:
    system = TinySystem()
    reached, go_on = threading.Event(), threading.Event()

    def at_step(done: int) -> None:
        if done == 3:
            reached.set()
            assert go_on.wait(30)

    [bulk] = engine.submit(model_of(system), [request_for(system, 1, steps=900, on_step=at_step)])
    assert reached.wait(30)
    assert bulk.cancel()
    go_on.set()
    [other] = engine.submit(model_of(system), [request_for(system, 2, steps=5)])
    other.result(30)
    assert len(system.forwards) == 3 + 5


def test_a_job_of_one_does_not_queue_behind_a_bulk_job(engine: Engine) -> None:
    system = TinySystem()
    both_submitted, forward = threading.Event(), system.forward

    def forward_once_both_submitted(*given: Tensor) -> Tensor:
        both_submitted.wait(30)
        return forward(*given)

    system.forward = forward_once_both_submitted  # type: ignore[method-assign]
    model = model_of(system, rows=2)
    finished: list[str] = []
    bulk = [request_for(system, n, steps=4, guidance_scale=2.0, group="bulk") for n in range(20)]
    single = request_for(system, 99, steps=4, guidance_scale=2.0, group="single")
    futures = engine.submit(model, bulk)
    futures += engine.submit(model, [single])
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: finished.append("single" if number == 20 else "bulk"))
    both_submitted.set()
    wait(futures, 60)
    assert finished.index("single") <= 2


def test_two_models_share_the_engine_step_by_step(engine: Engine) -> None:
    first, second = TinySystem(), TinySystem()
    trace: list[str] = []
    long = request_for(first, 1, steps=30, on_step=lambda _: trace.append("long"))
    short = request_for(second, 2, steps=5, on_step=lambda _: trace.append("short"))
    both = engine.submit(model_of(first), [long]) + engine.submit(model_of(second), [short])
    wait(both, 30)
    assert trace.count("long") == 30
    assert trace.count("short") == 5
    assert trace[-1] == "long", "the short one must not wait for the long one's end"


def test_a_forward_that_raises_fails_its_own_samples_and_no_others(engine: Engine) -> None:
    sound, failing = TinySystem(), TinySystem()

    def explode(*_: object) -> Tensor:
        raise RuntimeError("the device is on fire")

    failing.forward = explode  # type: ignore[method-assign]
    [bad] = engine.submit(model_of(failing), [request_for(failing, 1)])
    [good] = engine.submit(model_of(sound), [request_for(sound, 1)])
    with pytest.raises(SampleFailed, match="the device is on fire"):
        bad.result(30)
    assert torch.isfinite(good.result(30)).all()


def test_a_request_no_step_could_serve_is_refused_at_once(engine: Engine) -> None:
    system = TinySystem()
    for changes, message in (
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1001}, "1 to 1000"),
        ({"guidance_inputs": GuidanceInputs({"class": torch.zeros(3)}, {"class": torch.zeros(3)})}, r"'class': \(3,\)"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.submit(model_of(system), [request_for(system, 1, **changes)])


def test_a_stopped_engine_fails_its_unfinished_samples_and_accepts_no_more() -> None:
    engine, system = Engine(cpu_threads=1), TinySystem()
    started = threading.Event()
    futures = engine.submit(
        model_of(system), [request_for(system, n, steps=900, on_step=lambda _: started.set()) for n in range(20)]
    )
    assert started.wait(30)
    engine.stop()
    for future in futures:
        with pytest.raises(EngineStopped):
            future.result(30)
    with pytest.raises(EngineStopped):
        engine.submit(model_of(system), [request_for(system, 1)])


def test_a_preempted_sample_resumes_to_the_same_bits(engine: Engine) -> None:
    system = TinySystem()
    model = model_of(system, rows=4)
    bulk = [request_for(system, n, steps=40, guidance_scale=2.0, eta=1.0, group="bulk") for n in range(2)]
    alone = [bits(future.result(30)) for future in engine.submit(model, bulk)]
    singles: list[Future[Tensor]] = []
    order: list[str] = []

    def one_comes_at_step_10(done: int) -> None:
        if done == 10:
            single = request_for(
                system, 77, steps=5, guidance_scale=2.0, group="single", on_step=lambda _: order.append("single")
            )
            singles.extend(engine.submit(model, [single]))

    first = dataclasses.replace(bulk[0], on_step=one_comes_at_step_10)
    second = dataclasses.replace(bulk[1], on_step=lambda done: order.append(f"bulk {done}"))
    assert [bits(future.result(30)) for future in engine.submit(model, [first, second])] == alone
    assert engine.preemptions == 1
    start = order.index("single")
    assert order[start : start + 6] == ["single"] * 5 + ["bulk 11"], (
        "the second stood still for the five steps of the single"
    )


def test_models_share_the_engine_by_time_not_by_steps(engine: Engine) -> None:
    slow, quick = TinySystem(), TinySystem()
    forward = slow.forward

    def slowly(*given: Tensor) -> Tensor:
        time.sleep(0.02)
        return forward(*given)

    slow.forward = slowly  # type: ignore[method-assign]
    together = engine.submit(model_of(slow), [request_for(slow, 1, steps=20)])
    together += engine.submit(model_of(quick), [request_for(quick, 2, steps=900)])
    together[1].result(60)
    assert len(slow.forwards) < 450, "equal numbers of steps would have given the slow one nearly all of the time"


def test_out_of_memory_halves_the_shape_once_and_restarts_the_samples(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    system = TinySystem()
    small = model_of(TinySystem(), rows=4)
    requests = [request_for(system, n, steps=6, guidance_scale=2.0) for n in range(6)]
    expected = [bits(future.result(30)) for future in engine.submit(small, requests)]
    forward = system.forward

    def too_much_for_eight(x: Tensor, t: Tensor, condition: object) -> Tensor:
        if len(x) > 4 and len(system.forwards) >= 2:
            raise torch.OutOfMemoryError("tried to allocate more than there is")
        return forward(x, t, condition)  # type: ignore[arg-type]

    system.forward = too_much_for_eight  # type: ignore[method-assign]
    model = model_of(system, rows=8)
    assert [bits(future.result(30)) for future in engine.submit(model, requests)] == expected
    assert model.rows == 4
    assert "going on with 4" in caplog.text

    def never_enough(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("still too much")

    system.forward = never_enough  # type: ignore[method-assign]
    [failed] = engine.submit(model, requests[:1])
    with pytest.raises(SampleFailed, match="still too much"):
        failed.result(30)
    assert model.rows == 4


def test_a_lost_device_stops_the_engine_and_fails_every_sample_as_stopped() -> None:
    lost = threading.Event()
    engine, system = Engine(cpu_threads=1, on_device_lost=lost.set), TinySystem()

    def broken(*_: object) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    system.forward = broken  # type: ignore[method-assign]
    futures = engine.submit(model_of(system), [request_for(system, n) for n in range(20)])
    for future in futures:
        with pytest.raises(EngineStopped):
            future.result(30)
    assert lost.wait(30)
    engine.stop()
