"""The plain sampling loop: a batch of samples from noise to x_0, all with the same settings.

Training's sample grids and the evaluators use it; the worker's engine mixes samples at different timesteps instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model_store.diffusion.ddim import DDIM, guide
from model_store.diffusion.noise import SampleNoise
from model_store.interface import Condition

Denoiser = Callable[[Tensor, Tensor, Condition], Tensor]
"""(x ``(B, C, h, w)``, t ``(B,)``, stacked conditions) -> the network's output ``(B, C, h, w)``."""


@torch.no_grad()
def sample(
    denoise: Denoiser,
    ddim: DDIM,
    condition: Condition,
    null: Condition | None,
    seeds: Sequence[int],
    shape: Sequence[int],
    *,
    steps: int,
    guidance_scale: float = 1.0,
    eta: float = 0.0,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """x_0 ``(B, C, h, w)`` float32, in about [-1, 1] where x is pixels, for ``B`` stacked conditions and their seeds.

    ``null``: the other side of guidance; None if it is the same as ``condition``. ``on_step`` receives the number of
    steps done. With guidance 1, or without ``null``, each sample takes one row of the forward, else two.
    """
    count = len(seeds)
    device = next((value.device for value in condition.values()), torch.device("cpu"))
    streams = [SampleNoise(seed, shape) for seed in seeds]
    x = torch.stack([stream.draw() for stream in streams]).to(device)
    scale = torch.full((count,), float(guidance_scale), device=device)
    etas = torch.full((count,), float(eta), device=device)
    timesteps = ddim.timesteps(steps)
    for done, t in enumerate(timesteps.tolist(), start=1):
        ts = torch.full((count,), t, dtype=torch.int64, device=device)
        if guidance_scale == 1.0 or null is None:
            output = denoise(x, ts, condition)
        else:
            both = denoise(
                torch.cat([x, x]), torch.cat([ts, ts]), {k: torch.cat([null[k], condition[k]]) for k in condition}
            )
            output = guide(both[:count], both[count:], scale)
        noise = torch.stack([stream.draw() for stream in streams]).to(device) if eta > 0 else None
        x = ddim.step(x, output.float(), ts, ddim.previous(ts, steps), etas, noise)
        if on_step is not None:
            on_step(done)
    return x
