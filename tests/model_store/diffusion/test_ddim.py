"""The batched DDIM step against diffusers' DDIMScheduler, and the forward process against its definitions."""

from __future__ import annotations

import pytest
import torch

from model_store.card import SamplerConvention
from model_store.diffusion.ddim import DDIM, guide
from model_store.diffusion.noise import SampleNoise, initial_noise
from model_store.diffusion.sampling import sample
from model_store.diffusion.schedule import (
    add_noise,
    alphas_cumprod,
    predicted_x0_and_noise,
    velocity,
)
from tests.model_store.diffusion.reference_ddim import reference_scheduler

SPACINGS = ("leading", "trailing", "linspace")


def toy_network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Something nonlinear that depends on x and t, for any batch."""
    return torch.tanh(x.roll(1, -1) * 0.7 + (t.float() / 500 - 1).view(-1, 1, 1, 1))


@pytest.mark.parametrize("steps", [1, 7, 10, 30, 50, 333, 1000])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_are_diffusers_for_counts_that_divide_1000_and_that_do_not(steps: int, spacing: str) -> None:
    convention = SamplerConvention(timestep_spacing=spacing)
    scheduler = reference_scheduler(convention)
    scheduler.set_timesteps(steps)
    assert torch.equal(DDIM(convention).timesteps(steps), scheduler.timesteps)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [7, 20, 30])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("final_one", [True, False])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_a_whole_run_equals_diffusers_to_rounding(
    eta: float, steps: int, spacing: str, prediction: str, final_one: bool, schedule: str
) -> None:
    convention = SamplerConvention(
        timestep_spacing=spacing, prediction_type=prediction, set_alpha_to_one=final_one, schedule=schedule
    )
    scheduler = reference_scheduler(convention)
    scheduler.set_timesteps(steps)
    shape, seed = (6, 8, 8), 11
    stream = SampleNoise(seed, shape)
    x = stream.draw()[None]
    for t in scheduler.timesteps:
        noise = stream.draw()[None] if eta else None
        x = scheduler.step(toy_network(x, t[None]), t, x, eta=eta, variance_noise=noise).prev_sample
    ours = sample(lambda x, t, c: toy_network(x, t), DDIM(convention), {}, None, [seed], shape, steps=steps, eta=eta)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


def test_samples_at_different_timesteps_and_etas_step_in_one_batch_as_they_do_alone() -> None:
    ddim = DDIM(SamplerConvention(prediction_type="v_prediction"))
    generator = torch.Generator().manual_seed(0)
    x, output, noise = (torch.randn(4, 6, 8, 8, generator=generator) for _ in range(3))
    t, t_prev = torch.tensor([999, 500, 19, 979]), torch.tensor([979, 480, -1, 940])
    eta = torch.tensor([0.0, 1.0, 0.5, 0.3])
    together = ddim.step(x, output, t, t_prev, eta, noise)
    for i in range(4):
        one = slice(i, i + 1)
        alone = ddim.step(x[one], output[one], t[one], t_prev[one], eta[one], noise[one])
        assert torch.equal(together[one], alone)


@pytest.mark.parametrize("steps", [0, 1001, -3])
def test_step_counts_outside_the_training_range_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and 1000, not {steps}"):
        DDIM(SamplerConvention()).timesteps(steps)


def test_x0_and_noise_are_recovered_from_either_prediction() -> None:
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.rand(3, 6, 4, 4, generator=generator) * 2 - 1, torch.randn(3, 6, 4, 4, generator=generator)
    abar = alphas_cumprod(SamplerConvention())[torch.tensor([10, 300, 700])]
    x = add_noise(x0, noise, abar)
    for kind, output in (("epsilon", noise), ("v_prediction", velocity(x0, noise, abar))):
        found_x0, found_noise = predicted_x0_and_noise(x, output, abar, kind)
        torch.testing.assert_close(found_x0, x0, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found_noise, noise, rtol=1e-4, atol=1e-4)


def test_guidance_of_1_is_the_conditional_output_and_of_0_the_null_one() -> None:
    null, cond = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), 5.0)
    guided = guide(null, cond, torch.tensor([0.0, 1.0, 3.0]))
    assert guided[:, 0, 0, 0].tolist() == [2.0, 5.0, 11.0]


def test_noise_belongs_to_the_seed_alone_and_never_repeats_within_a_stream() -> None:
    stream = SampleNoise(5, (6, 4, 4))
    first, second = stream.draw(), stream.draw()
    assert torch.equal(first, initial_noise(5, (6, 4, 4)))
    assert not torch.equal(first, second)
    assert not torch.equal(first, initial_noise(6, (6, 4, 4)))
