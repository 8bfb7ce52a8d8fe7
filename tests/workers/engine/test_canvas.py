"""Canvases in the engine: one sample of many windows, with the bits, the fairness and the ends of any other."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future

import pytest
import torch
from torch import Tensor

from model_store.canvas.window_weights import WindowWeights
from model_store.canvas.windows import Windows
from model_store.diffusion.ddim import DDIM, guide
from model_store.diffusion.noise import SampleNoise
from model_store.interface import Condition, ConditionRequest, GuidanceInputs, stack_conditions
from tests.workers.engine.test_engine import bits, model_of, request_for
from tests.workers.fakes import TinySystem
from workers.engine import Engine, EngineModel, SampleFailed, SampleRequest


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(cpu_threads=1)
    yield engine
    engine.stop()


def inputs_of(system: TinySystem, *prompts: str) -> tuple[GuidanceInputs, ...]:
    return tuple(system.guidance_inputs(ConditionRequest(prompt=prompt)) for prompt in prompts)


def canvas_for(system: TinySystem, number: int, windows: Windows, **changes: object) -> SampleRequest:
    """A canvas whose every window has a condition of its own."""
    inputs = inputs_of(system, *(f"{number}, window {window}" for window in range(len(windows))))
    return request_for(system, number, windows=windows, guidance_inputs=inputs, **changes)


def one_window_at_a_time(system: TinySystem, request: SampleRequest, rows: int) -> Tensor:
    """The canvas without an engine: each window in a forward of its own, then the average, then one DDIM step."""
    windows, ddim = request.windows, DDIM(system.card.sampler)
    assert windows is not None
    noise = SampleNoise(request.seed, (6, windows.height, windows.width))
    x, eta = noise.draw()[None], torch.tensor([request.eta])
    timesteps = ddim.timesteps(request.steps)
    for t in timesteps:
        average = torch.zeros_like(x[0])
        for number in range(len(windows)):
            inputs = request.all_inputs[number if len(request.all_inputs) > 1 else 0]
            place = windows.place(number)
            row = x[:, :, *place].expand(rows, -1, -1, -1)
            cond, uncond = (
                system.forward(row, t.repeat(rows), stack_conditions([side] * rows))[:1]
                for side in (inputs.cond, inputs.uncond)
            )
            output = guide(uncond, cond, torch.tensor([request.guidance_scale]))
            average[:, *place] += torch.from_numpy(windows.weight(number)) * output[0]
        drawn = noise.draw()[None] if request.eta > 0 else None
        x = ddim.step(x, average[None], t[None], ddim.previous(t[None], request.steps), eta, drawn)
    return x[0]


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("weights", ["smooth", "uniform"])
def test_a_canvas_is_the_average_of_its_windows_at_every_step(
    engine: Engine, eta: float, weights: WindowWeights
) -> None:
    system = TinySystem()
    request = canvas_for(system, 1, Windows(20, 27, 8, 4, weights), steps=4, eta=eta, guidance_scale=2.5)
    [made] = engine.submit(model_of(system), [request])
    assert made.result(30).shape == (6, 20, 27)
    torch.testing.assert_close(made.result(), one_window_at_a_time(system, request, 8), rtol=0, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("weights", ["smooth", "uniform"])
def test_a_canvas_of_one_window_has_the_bits_of_the_plain_sample(
    engine: Engine, eta: float, scale: float, weights: WindowWeights
) -> None:
    system = TinySystem()
    model = model_of(system)
    plain = request_for(system, 5, eta=eta, guidance_scale=scale)
    canvas = request_for(system, 5, eta=eta, guidance_scale=scale, windows=Windows(8, 8, 8, 4, weights))
    made, same = engine.submit(model, [plain, canvas])
    assert bits(made.result(30)) == bits(same.result(30))


class ConstantSystem(TinySystem):
    """A network whose output is the same everywhere: the first number of the condition."""

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return condition["class"][:, :1, None, None].expand(x.shape).contiguous()


@pytest.mark.parametrize("windows", [Windows(21, 33, 8, 4), Windows(21, 33, 8, 7, "uniform"), Windows(16, 16, 8, 0)])
def test_a_constant_network_over_any_overlap_gives_a_constant(engine: Engine, windows: Windows) -> None:
    system = ConstantSystem()
    inputs = GuidanceInputs({"class": torch.full((8,), 0.5)}, {"class": torch.full((8,), 0.5)})
    changes = {"guidance_inputs": inputs, "guidance_scale": 1.0, "eta": 0.0, "steps": 5}
    [made] = engine.submit(model_of(system), [request_for(system, 3, windows=windows, **changes)])
    # what a plain step makes of the same noise and the same constant, pixel by pixel
    ddim = DDIM(system.card.sampler)
    x = SampleNoise(request_for(system, 3).seed, (6, windows.height, windows.width)).draw()[None]
    for t in ddim.timesteps(5):
        output = torch.full_like(x, 0.5)
        x = ddim.step(x, output, t[None], ddim.previous(t[None], 5), torch.zeros(1), None)
    assert torch.equal(made.result(30), x[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_canvases_in_mixed_company_have_the_bits_they_have_alone(engine: Engine, dtype: torch.dtype) -> None:
    system = TinySystem(dtype=dtype)
    model = model_of(system)
    shapes = [Windows(8, 40, 8, 4), Windows(21, 19, 8, 4, "uniform"), Windows(9, 8, 8, 2)]
    canvases = [canvas_for(system, number, shapes[number % 3]) for number in range(6)]
    requests = [*canvases, *(request_for(system, number) for number in range(10, 20))]
    alone = [bits(engine.submit(model, [request])[0].result(30)) for request in requests]
    for order in range(3):
        shuffled = list(range(len(requests)))
        random.Random(order).shuffle(shuffled)
        futures: dict[int, Future[Tensor]] = {}
        for start in range(0, len(shuffled), 4):
            part = shuffled[start : start + 4]
            futures |= dict(zip(part, engine.submit(model, [requests[n] for n in part]), strict=True))
            if start % 8:
                futures[part[0]].result(30)
        assert [bits(futures[n].result(30)) for n in range(len(requests))] == alone
    assert set(system.forwards) == {8}


def test_a_canvas_fills_the_batch_and_gives_it_up_to_another_tenant(engine: Engine) -> None:
    system = TinySystem()
    model = model_of(system)
    started = threading.Event()
    canvas = canvas_for(
        system,
        1,
        Windows(8, 132, 8, 4),
        steps=16,
        eta=0.0,
        guidance_scale=2.0,
        tenant="acme",
        on_step=lambda done: started.set(),
    )
    alone = bits(engine.submit(model, [canvas])[0].result(60))
    forwards, rows = engine.counts
    assert rows / (8 * forwards) == 1.0, "32 windows of two rows fill 8 forwards of 8 rows a step"

    started.clear()
    [large] = engine.submit(model, [canvas])
    assert started.wait(30)
    forwards = engine.counts[0]
    [small] = engine.submit(model, [request_for(system, 2, steps=10, guidance_scale=2.0, tenant="birch")])
    small.result(30)
    assert engine.counts[0] - forwards < 20, "the other tenant's sample has not waited for the canvas"
    assert not large.done()
    assert engine.preemptions >= 1
    assert bits(large.result(60)) == alone


def test_a_cancelled_canvas_leaves_at_once_and_the_others_go_on(engine: Engine) -> None:
    system = TinySystem()
    model = model_of(system)
    reached, go_on = threading.Event(), threading.Event()

    def at_step(done: int) -> None:
        if done == 2:
            reached.set()
            assert go_on.wait(30)

    other = canvas_for(system, 2, Windows(8, 24, 8, 4), steps=5)
    alone = bits(engine.submit(model, [other])[0].result(30))
    bulk, after = engine.submit(
        model, [canvas_for(system, 1, Windows(40, 40, 8, 4), steps=900, on_step=at_step), other]
    )
    assert reached.wait(30)
    assert bulk.cancel()
    go_on.set()
    assert bits(after.result(30)) == alone
    with pytest.raises(CancelledError):
        bulk.result(0)


def test_one_window_that_is_not_finite_fails_its_canvas_and_no_other_sample(engine: Engine) -> None:
    system = TinySystem()
    model = model_of(system)
    sound = canvas_for(system, 1, Windows(8, 24, 8, 4), steps=5)
    alone = bits(engine.submit(model, [sound])[0].result(30))
    windows = Windows(8, 24, 8, 4)
    inputs = inputs_of(system, *("a" for _ in range(len(windows) - 1)), "nan")
    broken = request_for(system, 2, windows=windows, guidance_inputs=inputs, guidance_scale=2.0, steps=6)
    bad, good = engine.submit(model, [broken, sound])
    with pytest.raises(SampleFailed, match="not finite after step 1 of 6"):
        bad.result(30)
    assert bits(good.result(30)) == alone


def test_a_canvas_restarts_with_half_the_rows_where_memory_ends(engine: Engine) -> None:
    class Greedy(TinySystem):
        def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            if len(x) > 4:
                raise torch.OutOfMemoryError("no memory")
            return super().forward(x, t, condition)

    system = Greedy()
    canvas = canvas_for(system, 1, Windows(16, 16, 8, 4), steps=3)
    [made] = engine.submit(model_of(system, rows=8), [canvas])
    [right] = engine.submit(EngineModel(TinySystem(), 4), [canvas])
    assert bits(made.result(30)) == bits(right.result(30))


def test_a_canvas_with_wrong_windows_is_refused_before_any_step(engine: Engine) -> None:
    system = TinySystem()
    model = model_of(system)
    two = inputs_of(system, "a", "b")
    with pytest.raises(ValueError, match="there are 2 conditions for 3 windows; give one for all, or one for each"):
        engine.submit(model, [request_for(system, 1, windows=Windows(8, 16, 8, 4), guidance_inputs=two)])
    with pytest.raises(ValueError, match=r"the windows have a side of 4; tiny@1\.0\.0 draws 8"):
        engine.submit(model, [request_for(system, 1, windows=Windows(8, 16, 4, 2))])
