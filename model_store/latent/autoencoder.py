"""The latent autoencoder (Rombach et al. 2022): images <-> latents, on diffusers' ``AutoencoderKL``."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class AutoencoderConfig(BaseModel):
    """The shape of an autoencoder; it is stored in the card, and the network is rebuilt from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent_channels: int = Field(4, ge=1)
    widths: tuple[int, ...] = Field(
        (128, 256, 512, 512), min_length=1, description="channels at each resolution, largest first"
    )
    layers_per_block: int = Field(2, ge=1)
    norm_groups: int = Field(32, ge=1)
    mid_attention: bool = True
    scaling_factor: float = Field(
        0.18215, gt=0, description="latents are multiplied by it, so that their variance is near 1"
    )

    @property
    def factor(self) -> int:
        """The image's side over the latent's: 8 for Stable Diffusion's (f8), 4 for PathDiff's (f4)."""
        return 1 << (len(self.widths) - 1)


def stable_diffusion_autoencoder() -> AutoencoderConfig:
    """Stable Diffusion 1.5's: f8, 4 channels (83.7 M parameters)."""
    return AutoencoderConfig()


def pathdiff_autoencoder() -> AutoencoderConfig:
    """LDM's f4 with 3 channels, as PathDiff's latent is 3 x 64 x 64 for 256 px."""
    return AutoencoderConfig(latent_channels=3, widths=(128, 256, 512), scaling_factor=1.0)


def small_autoencoder() -> AutoencoderConfig:
    """f4, 4 channels, for CPUs: about 1.3 M parameters. Training measures the scaling factor."""
    return AutoencoderConfig(
        widths=(32, 64, 96), layers_per_block=1, norm_groups=8, mid_attention=False, scaling_factor=1.0
    )


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderKL:
    """The network, untrained."""
    levels = len(config.widths)
    autoencoder: AutoencoderKL = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.widths,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        mid_block_add_attention=config.mid_attention,
        scaling_factor=config.scaling_factor,
    )
    return autoencoder


def encode_moments(autoencoder: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latents of images, ``(B, c, H/f, W/f)`` each.

    Images are ``(B, 3, H, W)`` in [-1, 1].
    """
    posterior = autoencoder.encode(images).latent_dist
    scale: float = autoencoder.config["scaling_factor"]
    return posterior.mean * scale, posterior.std * scale


def decode_latents(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images ``(B, 3, H, W)``, about [-1, 1], of scaled latents ``(B, c, H/f, W/f)``."""
    images: Tensor = autoencoder.decode(latents / autoencoder.config["scaling_factor"]).sample
    return images


def draw_latents(mean: Tensor, std: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One draw from the posterior; the noise is drawn on the CPU."""
    return mean + std * torch.randn(mean.shape, generator=generator).to(mean)
