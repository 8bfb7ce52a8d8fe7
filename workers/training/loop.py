"""Randomness, row order, learning rate and weight average of every training.

All randomness of an iteration comes from a generator seeded by (seed, iteration, process), so a run that resumes from a
checkpoint draws what the undisturbed run would have drawn, and nothing but weights and optimiser need saving.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

NOISY_FIFTH = 0.2
"""The noisiest fifth of the timesteps, and its share of uniform draws."""


def iteration_generator(seed: int, iteration: int, process: int = 0) -> torch.Generator:
    """The CPU generator that all random draws of one iteration on one process come from."""
    digest = hashlib.sha256(f"twinset-training:{seed}:{iteration}:{process}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def stratified_timesteps(
    count: int, total: int, generator: torch.Generator, *, noisy_share: float = NOISY_FIFTH
) -> Tensor:
    """``(count,)`` int64 in [0, total): one draw from each of ``count`` equal stretches, in random order.

    Each is uniform by itself, as in CoSimGen's Algorithm 1, but together they cover the range, which makes the loss
    less noisy (Kingma et al. 2021, Variational Diffusion Models, appendix I). ``noisy_share`` (0 to 1, both excluded)
    is the share of the draws that fall to the noisiest fifth; a fifth is uniform.
    """
    places = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    if noisy_share != NOISY_FIFTH:
        clear = 1.0 - noisy_share
        lower = places * ((1 - NOISY_FIFTH) / clear)
        places = torch.where(places < clear, lower, 1 - NOISY_FIFTH + (places - clear) * (NOISY_FIFTH / noisy_share))
    return (places * total).long().clamp(max=total - 1)


class EndlessRows:
    """An endless sequence of ``count`` rows, shuffled anew each epoch; ``rows[position]`` is the row at a position.

    With ``repeats`` ``(count,)`` >= 1 a row comes that many times an epoch on average: a fraction is a probability,
    drawn anew each epoch.
    """

    def __init__(self, count: int, seed: int, repeats: np.ndarray | None = None) -> None:
        self._count, self._seed, self._epoch = count, seed, -1
        self._order = np.arange(count)
        self._ends = None if repeats is None else np.cumsum(repeats)
        if self._ends is not None:
            self._count = round(float(self._ends[-1]))

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self._count)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            rows = np.arange(self._count) if self._ends is None else self._repeated(self._ends, rng)
            self._order, self._epoch = rng.permutation(rows), epoch
        return int(self._order[place])

    def _repeated(self, ends: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # systematic sampling: equal steps from a random start along the rows laid end to end, each as long as its
        # repeats
        steps: np.ndarray = (np.arange(self._count) + rng.random()) * (ends[-1] / self._count)
        rows: np.ndarray = np.searchsorted(ends, steps, side="right").clip(max=len(ends) - 1)
        return rows


def learning_rate(iteration: int, *, base: float, warmup: int, total: int, decay_from: float) -> float:
    """Linear warm-up over ``warmup`` iterations, then ``base``, then linear to 0 from ``decay_from`` (0..1) on."""
    if iteration < warmup:
        return base * (iteration + 1) / warmup
    start = decay_from * total
    if iteration < start:
        return base
    return base * max(0.0, (total - iteration) / max(1.0, total - start))


def attention_kernel(device: torch.device) -> AbstractContextManager[None]:
    """Attention by plain matrix products on the CPU, where torch's fused kernel is slow backwards."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


class Ema:
    """An exponential moving average of a module's parameters, with warm-up: decay = min(d, (1 + k) / (10 + k))."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = [parameter.detach().clone() for parameter in module.parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module, iteration: int) -> None:
        """Moves the average towards the module's parameters."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in module.parameters()], 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Writes the average into a module of the same shape."""
        for parameter, value in zip(module.parameters(), self.shadow, strict=True):
            parameter.copy_(value)
