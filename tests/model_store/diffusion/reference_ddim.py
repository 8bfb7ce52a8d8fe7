"""diffusers' DDIM scheduler as the reference that ours is held to."""

from __future__ import annotations

from diffusers import DDIMScheduler

from model_store.card import SamplerConvention


def reference_scheduler(convention: SamplerConvention) -> DDIMScheduler:
    """The scheduler of a card's convention, its timesteps not set yet."""
    return DDIMScheduler(
        num_train_timesteps=convention.train_timesteps,
        beta_start=convention.beta_start,
        beta_end=convention.beta_end,
        beta_schedule=convention.schedule,
        clip_sample=convention.clip_sample,
        clip_sample_range=convention.clip_sample_range,
        set_alpha_to_one=convention.set_alpha_to_one,
        steps_offset=convention.steps_offset,
        prediction_type=convention.prediction_type,
        timestep_spacing=convention.timestep_spacing,
    )
