"""The forward process: beta schedules, and conversions between x_t, x_0, noise and velocity.

Symbols as in DDPM (Ho et al. 2020) and DDIM (Song et al. 2021): abar_t is the cumulative product of 1 - beta_t, and x_t
= sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps. Velocity, v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0, is Salimans & Ho 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model_store.card import SamplerConvention


def alphas_cumprod(convention: SamplerConvention) -> Tensor:
    """abar_0 .. abar_{T-1}, float32 ``(T,)``, by the formulas of diffusers' schedulers.

    ``squaredcos_cap_v2`` is the cosine schedule of Nichol & Dhariwal 2021 (eq. 17, beta at most 0.999).
    """
    steps, low, high = convention.train_timesteps, convention.beta_start, convention.beta_end
    if convention.schedule == "squaredcos_cap_v2":
        share = torch.arange(steps + 1, dtype=torch.float64) / steps
        bar = torch.cos((share + 0.008) / 1.008 * torch.pi / 2) ** 2
        betas = (1.0 - bar[1:] / bar[:-1]).clamp(max=0.999).float()
    elif convention.schedule == "linear":
        betas = torch.linspace(low, high, steps, dtype=torch.float32)
    else:
        betas = torch.linspace(low**0.5, high**0.5, steps, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` reshaped to ``(B, 1, 1, 1)`` so that it broadcasts over ``like`` of ``(B, C, h, w)``."""
    return values.to(device=like.device).view(-1, *([1] * (like.dim() - 1)))


def add_noise(x0: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """x_t from x_0 and eps, ``(B, C, h, w)`` each, with abar_t ``(B,)``."""
    abar = per_sample(abar, x0)
    return abar.sqrt() * x0 + (1.0 - abar).sqrt() * noise


def velocity(x0: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """v_t from x_0 and eps."""
    abar = per_sample(abar, x0)
    return abar.sqrt() * noise - (1.0 - abar).sqrt() * x0


def predicted_x0_and_noise(x: Tensor, output: Tensor, abar: Tensor, prediction_type: str) -> tuple[Tensor, Tensor]:
    """(x0_hat, eps_hat) from x_t and the network's output, by prediction type (``epsilon`` or ``v_prediction``)."""
    abar = per_sample(abar, x)
    alpha, sigma = abar.sqrt(), (1.0 - abar).sqrt()
    if prediction_type == "epsilon":
        return (x - sigma * output) / alpha, output
    if prediction_type == "v_prediction":
        return alpha * x - sigma * output, alpha * output + sigma * x
    raise ValueError(f"prediction type {prediction_type!r} is neither 'epsilon' nor 'v_prediction'")
