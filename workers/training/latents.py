"""Latents in training: encoded once, noised by a convention, and sampled by DDIM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from model_store.card import SamplerConvention
from model_store.diffusion.ddim import DDIM
from model_store.diffusion.sampling import Denoiser, sample
from model_store.diffusion.schedule import add_noise, velocity
from model_store.latent.autoencoder import decode_latents, draw_latents, encode_moments
from model_store.masks.decode import to_pixels
from workers.data.pairs import Pairs, stacked
from workers.data.pixels import as_images
from workers.data.tiles import WHOLE, PairDraw
from workers.training.loop import stratified_timesteps


class LatentBank:
    """Means and standard deviations of the latents of images in each of their turns, computed once, before training.

    An autoencoder does not commute with turning, so a turned image has latents of its own. They are held in memory as
    float32: 74 kB for each turn of an image of 384 px at f8.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL,
        images: np.ndarray | Pairs,
        turns: int,
        *,
        batch_size: int = 16,
        show: bool = False,
    ) -> None:
        """images ``(N, s, s, 3)`` uint8, or pairs; the autoencoder encodes on its device, in float32."""
        device = next(autoencoder.parameters()).device
        means, stds = [], []
        bar = tqdm(total=turns * len(images), desc="latents", unit="image", disable=not show, dynamic_ncols=True)
        with bar, torch.no_grad():
            for turn in range(turns):
                for start in range(0, len(images), batch_size):
                    part = _part(images, start, min(start + batch_size, len(images)))
                    mean, std = encode_moments(autoencoder, as_images(part, [turn] * len(part)).to(device))
                    means.append(mean.cpu())
                    stds.append(std.cpu())
                    bar.update(len(part))
        shape = (turns, len(images), *means[0].shape[1:])
        self.mean, self.std = torch.cat(means).reshape(shape), torch.cat(stds).reshape(shape)

    def draw(self, rows: Sequence[int], turns: Sequence[int], generator: torch.Generator) -> Tensor:
        """z_0 of rows in turns, drawn from their posteriors: ``(B, c, h, w)`` float32 on the CPU."""
        return draw_latents(self.mean[turns, rows], self.std[turns, rows], generator)


class LatentSource:
    """Latents of drawn pairs: from a bank, if all of them fit in memory, else encoded anew in each iteration."""

    def __init__(
        self, autoencoder: AutoencoderKL, pairs: Pairs, turns: int, *, tiles: bool, max_bytes: int, show: bool
    ) -> None:
        """``tiles`` are drawn endlessly, so no bank holds them."""
        self._autoencoder = autoencoder
        self.bank: LatentBank | None = None
        if not tiles and self._bytes_of(pairs) * turns * len(pairs) <= max_bytes:
            self.bank = LatentBank(autoencoder, pairs, turns, show=show)

    def draw(
        self,
        rows: Sequence[int],
        turns: Sequence[int],
        generator: torch.Generator,
        images: Callable[[], np.ndarray],
    ) -> Tensor:
        """z_0 of rows in turns, ``(B, c, h, w)`` float32 on the CPU; ``images`` gives the rows' if they are needed."""
        if self.bank is not None:
            return self.bank.draw(rows, turns, generator)
        device = next(self._autoencoder.parameters()).device
        with torch.no_grad():
            mean, std = encode_moments(self._autoencoder, as_images(images(), turns).to(device))
        return draw_latents(mean.cpu(), std.cpu(), generator)

    def _bytes_of(self, pairs: Pairs) -> int:
        """What the latents of one image take in a bank."""
        device = next(self._autoencoder.parameters()).device
        with torch.no_grad():
            mean, _ = encode_moments(self._autoencoder, as_images(_part(pairs, 0, 1)).to(device))
        return 2 * mean.numel() * mean.element_size()


def _part(images: np.ndarray | Pairs, start: int, stop: int) -> np.ndarray:
    if isinstance(images, np.ndarray):
        return images[start:stop]
    return stacked(images, [PairDraw(row, WHOLE) for row in range(start, stop)])[0]


@dataclass(frozen=True)
class Noised:
    """z_t with the inputs of a loss: z, noise and target ``(B, c, h, w)``, t ``(B,)`` int64, abar_t ``(B,)``."""

    z: Tensor
    noise: Tensor
    target: Tensor
    t: Tensor
    abar: Tensor


def noise_latents(z0: Tensor, abar_all: Tensor, prediction_type: str, generator: torch.Generator) -> Noised:
    """Noises z_0 ``(B, c, h, w)`` (on the CPU) at timesteps that cover the range ``(T,)`` of ``abar_all``.

    The result is on the device of ``abar_all``. The target is the noise, or the velocity if the network predicts that.
    """
    t = stratified_timesteps(len(z0), len(abar_all), generator)
    noise = torch.randn(z0.shape, generator=generator)
    z0, noise, t = (value.to(abar_all.device) for value in (z0, noise, t))
    abar = abar_all[t]
    target = noise if prediction_type == "epsilon" else velocity(z0, noise, abar)
    return Noised(add_noise(z0, noise, abar), noise, target, t, abar)


def sample_images(
    denoise: Denoiser,
    autoencoder: AutoencoderKL,
    convention: SamplerConvention,
    condition: Mapping[str, Tensor],
    null: Mapping[str, Tensor] | None,
    shape: Sequence[int],
    *,
    steps: int,
    guidance_scale: float,
) -> np.ndarray:
    """Images ``(B, H, W, 3)`` uint8 of ``B`` stacked conditions, seeds 0..B-1, from latents of ``shape`` (c, h, w)."""
    first = next(iter(condition.values()))
    z0 = sample(
        denoise,
        DDIM(convention, first.device),
        condition,
        null,
        range(len(first)),
        shape,
        steps=steps,
        guidance_scale=guidance_scale,
    )
    with torch.no_grad():
        return np.concatenate([to_pixels(decode_latents(autoencoder, z)) for z in z0.float().chunk(len(z0))])


def grid(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns of images ``(B, H, W, 3)`` uint8 -> one ``(B H, columns W, 3)`` image, a row a sample."""
    wide = np.concatenate(list(columns), axis=2)
    return wide.reshape(-1, *wide.shape[2:])


def latent_data(name: str, licence: str, images: int, use: str) -> dict[str, Any]:
    """A dataset's entry in the training data of a card or a base."""
    return {"name": name, "split": "train", "images": images, "licence": licence, "for": use}
