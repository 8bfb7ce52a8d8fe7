"""The engine on CUDA, with networks of the shipped shapes: the same bits, and the arithmetic of diffusers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch

from model_store.diffusion.noise import initial_noise
from model_store.interface import System, stack_conditions
from tests.benchmarks.untrained import build
from tests.model_store.diffusion.reference_ddim import reference_scheduler
from workers.engine import Engine, EngineModel, SampleFailed, SampleRequest
from workers.engine.forward import ForwardWay
from workers.generation.warmup import any_request

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
SYSTEMS = ["cosimgen", "siamese-diffusion", "pathdiff"]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.stop()


def requests_for(system: System, count: int, **changes: object) -> list[SampleRequest]:
    """Samples that differ in seed, steps, guidance and eta."""
    draw = random.Random(0)
    guidance_inputs = system.guidance_inputs(any_request(system.card))
    return [
        SampleRequest(
            **{
                "seed": draw.getrandbits(53),
                "guidance_inputs": guidance_inputs,
                "steps": draw.choice([3, 5, 8]),
                "guidance_scale": draw.choice([1.0, 2.5]),
                "eta": draw.choice([0.0, 0.7]),
            }
            | changes
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("way", [ForwardWay(), ForwardWay(graph=True)], ids=str)
@pytest.mark.parametrize("name", SYSTEMS)
def test_bits_do_not_depend_on_other_samples(engine: Engine, name: str, way: ForwardWay) -> None:
    system = build(name, "small", DEVICE, torch.bfloat16)
    model = EngineModel(system, 8, way=way)
    requests = requests_for(system, 12)
    alone = [engine.submit(model, [request])[0].result(120).cpu() for request in requests]
    for order in range(3):
        shuffled = list(range(12))
        random.Random(order).shuffle(shuffled)
        futures = dict(zip(shuffled, engine.submit(model, [requests[n] for n in shuffled]), strict=True))
        assert all(torch.equal(futures[n].result(120).cpu(), alone[n]) for n in range(12))


@pytest.mark.parametrize("way", [ForwardWay(), ForwardWay(graph=True)], ids=str)
@pytest.mark.parametrize("name", SYSTEMS)
def test_it_equals_a_loop_of_diffusers(engine: Engine, name: str, way: ForwardWay) -> None:
    system = build(name, "small", DEVICE, torch.float32)
    scheduler = reference_scheduler(system.card.sampler)
    requests = requests_for(system, 3, steps=8, eta=0.0, guidance_scale=2.0)
    made = [future.result(120) for future in engine.submit(EngineModel(system, 8, way=way), requests)]
    scheduler.set_timesteps(8)
    with torch.inference_mode():
        for request, result in zip(requests, made, strict=True):
            x = initial_noise(request.seed, system.sample_shape)[None].to(DEVICE)
            both = stack_conditions([request.guidance_inputs.uncond, request.guidance_inputs.cond])
            for t in scheduler.timesteps:
                null, given = system.forward(torch.cat([x, x]), t.expand(2).to(DEVICE), both).chunk(2)
                x = scheduler.step(null + 2.0 * (given - null), t, x).prev_sample
            torch.testing.assert_close(result, x[0], rtol=2e-3, atol=2e-3)


def test_out_of_memory_halves_the_shape_and_the_samples_are_still_made(engine: Engine) -> None:
    system = build("cosimgen", "small", DEVICE, torch.bfloat16)
    model = EngineModel(system, 1 << 16)
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        with pytest.raises(SampleFailed, match="memory"):
            engine.submit(model, requests_for(system, 1))[0].result(120)
        assert model.halved
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    result = engine.submit(EngineModel(system, 8), requests_for(system, 1))[0].result(120)
    assert torch.isfinite(result).all()
