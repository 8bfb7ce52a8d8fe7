"""Batched DDIM (Song et al. 2021, eq. 12): one step of samples, each at its own timestep.

The convention (spacing, offset, final alpha, clipping) is the card's, in the words of diffusers' ``DDIMScheduler``,
which this matches to rounding for any number of steps, also one that does not divide the training's. All arithmetic is
float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model_store.card import SamplerConvention
from model_store.diffusion.schedule import alphas_cumprod, per_sample, predicted_x0_and_noise


class DDIM:
    """The sampler of one convention; it holds no state of samples."""

    def __init__(self, convention: SamplerConvention, device: torch.device | str = "cpu") -> None:
        self.convention = convention
        abar = alphas_cumprod(convention)
        final = torch.ones(1) if convention.set_alpha_to_one else abar[:1]
        # index t + 1, so that t = -1, "before the first", finds the final alpha
        self._abar = torch.cat([final, abar]).to(device)

    def timesteps(self, steps: int) -> Tensor:
        """The timesteps of a run of ``steps`` forwards, descending, int64 ``(steps,)``.

        Raises ValueError unless 1 <= steps <= T.
        """
        total, spacing = self.convention.train_timesteps, self.convention.timestep_spacing
        if not 1 <= steps <= total:
            raise ValueError(f"steps must lie between 1 and {total}, not {steps}")
        grid: np.ndarray
        if spacing == "linspace":
            grid = np.linspace(0, total - 1, steps).round()[::-1]
        elif spacing == "leading":
            grid = (np.arange(0, steps) * (total // steps)).round()[::-1] + self.convention.steps_offset
        else:
            grid = np.round(np.arange(total, 0, -total / steps)) - 1
        return torch.from_numpy(grid.astype(np.int64))

    def previous(self, timesteps: Tensor, steps: int) -> Tensor:
        """The timestep after each of ``timesteps``: t - T // steps, or -1 (the final alpha) for anything below 0.

        That is diffusers' rule; where ``steps`` does not divide T it is not quite the next entry of :meth:`timesteps`.
        """
        return (timesteps - self.convention.train_timesteps // steps).clamp(min=-1)

    def step(self, x: Tensor, output: Tensor, t: Tensor, t_prev: Tensor, eta: Tensor, noise: Tensor | None) -> Tensor:
        """x_{t_prev} from x_t: one DDIM step of every sample.

        x, output: ``(B, C, h, w)`` float32, output is the network's, after guidance. t, t_prev: ``(B,)``
        int64, t_prev = -1 for the end. eta: ``(B,)`` float32 in [0, 1]; noise: ``(B, C, h, w)``, read where eta > 0,
        None if nowhere.
        """
        abar, abar_prev = self._abar[t + 1], self._abar[t_prev + 1]
        x0, eps = predicted_x0_and_noise(x, output, abar, self.convention.prediction_type)
        if self.convention.clip_sample:
            limit = self.convention.clip_sample_range
            x0 = x0.clamp(-limit, limit)
        variance = (1.0 - abar_prev) / (1.0 - abar) * (1.0 - abar / abar_prev)
        sigma = eta * variance.clamp(min=0.0).sqrt()
        direction = (1.0 - abar_prev - sigma**2).clamp(min=0.0).sqrt()
        result = per_sample(abar_prev.sqrt(), x) * x0 + per_sample(direction, x) * eps
        if noise is not None:
            result = result + per_sample(sigma, x) * noise
        return result


def guide(null_output: Tensor, cond_output: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): null + scale (cond - null), scale ``(B,)``."""
    return null_output + per_sample(scale, cond_output) * (cond_output - null_output)
