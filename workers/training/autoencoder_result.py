"""Figures of a trained autoencoder, the width of its latents, and its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from model_store.latent.autoencoder import AutoencoderConfig
from model_store.latent.base import AUTOENCODER_ABOUT, AUTOENCODER_WEIGHTS
from model_store.masks.decode import to_pixels
from workers.data.image_quality import psnr
from workers.data.pixels import as_images
from workers.training.card_parts import joined_licences, versions, weights_file
from workers.training.latents import LatentBank


def reconstructed(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    """Images ``(B, 3, H, W)`` in [-1, 1], encoded to the means of their latents and decoded."""
    with torch.no_grad():
        made: Tensor = autoencoder.decode(autoencoder.encode(images).latent_dist.mean).sample
    return made


def measured_psnr(autoencoder: AutoencoderKL, images: np.ndarray, *, batch_size: int = 8) -> float:
    """The mean PSNR in dB of the reconstructions of images ``(N, s, s, 3)`` uint8, on 8-bit pixels."""
    device = next(autoencoder.parameters()).device
    found: list[float] = []
    for start in range(0, len(images), batch_size):
        real = images[start : start + batch_size]
        found += [
            psnr(a, b, 255.0)
            for a, b in zip(real, to_pixels(reconstructed(autoencoder, as_images(real).to(device))), strict=True)
        ]
    return round(float(np.mean(found)), 3)


def latent_deviation(bank: LatentBank, scaling_factor: float) -> float:
    """The standard deviation of unscaled draws from all latents of a bank: E[z^2] = E[mean^2 + std^2]."""
    second = (bank.mean.double().square() + bank.std.double().square()).mean()
    return float((second - bank.mean.double().mean().square()).sqrt()) / scaling_factor


def save_autoencoder(
    autoencoder: AutoencoderKL, config: AutoencoderConfig, scaling_factor: float, folder: Path, about: dict[str, Any]
) -> dict[str, Any]:
    """Writes weights (float32) and description into ``folder``; returns the description, with the measured config."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / AUTOENCODER_WEIGHTS
    save_file(
        {name: value.detach().cpu().contiguous().float() for name, value in autoencoder.state_dict().items()}, path
    )
    measured = config.model_copy(update={"scaling_factor": round(scaling_factor, 6)})
    about = {
        "format": 1,
        "network": measured.model_dump(mode="json"),
        "files": {path.name: weights_file(path).sha256},
        "licence": joined_licences(entry["licence"] for entry in about["data"]),
        **about,
        "versions": versions("torch", "accelerate", "diffusers", "twinset"),
    }
    (folder / AUTOENCODER_ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return about
