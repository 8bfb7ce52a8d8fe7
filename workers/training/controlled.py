"""Training on top of a latent base, as Siamese-Diffusion and PathDiff have it: frozen parts, colours, sample images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from model_store.diffusion.sampling import Denoiser
from model_store.diffusion.schedule import alphas_cumprod
from model_store.interface import Condition
from model_store.latent.base import LatentBase
from model_store.latent.denoiser import control_residuals, denoise
from model_store.masks.palette import fibonacci_rgb
from model_store.weights import to_device
from workers.training.latents import grid, sample_images
from workers.training.network_trainer import Network, NetworkTrainer, RunSettings

PREVIEWS = 6
"""Rows of a sample image."""


def class_palette(count: int) -> np.ndarray:
    """The colours of classes in a mask's hint, ``(count, 3)`` uint8: black and white for two, else F-RGB."""
    return np.array([[0, 0, 0], [255, 255, 255]], dtype=np.uint8) if count == 2 else fibonacci_rgb(count)


def palette_tensor(count: int) -> Tensor:
    """The same as ``(count, 3)`` float32 in [0, 1], as a loaded model reads it from its card."""
    return torch.from_numpy(class_palette(count)).float() / 255.0


class HintConfig(Protocol):
    """The shape of a hint network, of either paper."""

    @property
    def factor(self) -> int: ...

    @property
    def out_channels(self) -> int: ...

    def model_dump(self, *, mode: Literal["json", "python"]) -> dict[str, Any]: ...


class ControlledNetwork(Protocol):
    """A U-Net with its control copy and its hint network."""

    @property
    def unet(self) -> UNet2DConditionModel: ...

    @property
    def control(self) -> ControlNetModel: ...

    @property
    def hint(self) -> nn.Module: ...


def controlled(network: ControlledNetwork) -> Denoiser:
    """The denoiser of a controlled network; its conditions are ``text`` ``(B, L, d)`` and hint features ``hint``."""

    def forward(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        residuals = control_residuals(network.control, x, t, condition["text"], condition["hint"])
        return denoise(network.unet, x, t, condition["text"], residuals).float()

    return forward


class ControlledTrainer(NetworkTrainer[Network]):
    """A run that trains a control copy and a hint network on a base, and, in Siamese-Diffusion, a part of its U-Net."""

    guidance_scale: float = 1.0

    def __init__(
        self, base: LatentBase, hint: HintConfig, out: Path, settings: RunSettings, accelerator: Accelerator
    ) -> None:
        """Raises ValueError for a ``hint`` network of another size than the base's latents."""
        super().__init__(out, settings, accelerator)
        if hint.factor != base.autoencoder_config.factor:
            raise ValueError(
                f"the hint network makes masks {hint.factor} times smaller and the base's latents are "
                f"{base.autoencoder_config.factor} "
                "times smaller than its images; give them the same factor"
            )
        if hint.out_channels != base.denoiser_config.hint_channels:
            raise ValueError(
                f"the hint network has {hint.out_channels} channels; this base's control takes "
                f"{base.denoiser_config.hint_channels}"
            )
        self.base, self.hint_config = base, hint
        self.prediction_type = base.convention.prediction_type
        self.autoencoder = to_device(base.autoencoder, accelerator.device).eval().requires_grad_(False)
        self.abar = alphas_cumprod(base.convention).to(accelerator.device)

    def identity(self) -> dict[str, Any]:
        return {
            "base": self.base.fingerprint,
            "hint network": self.hint_config.model_dump(mode="json"),
            "size": self.base.size_px,
        }

    def sampled(self, network: ControlledNetwork, condition: dict[str, Tensor], null: dict[str, Tensor]) -> np.ndarray:
        """Images of stacked conditions, in few steps: ``(B, H, W, 3)`` uint8."""
        return sample_images(
            controlled(network),
            self.autoencoder,
            self.base.convention,
            condition,
            null,
            self.base.denoiser_config.latent_shape,
            steps=25,
            guidance_scale=self.guidance_scale,
        )

    def write_sample_image(self, iteration: int, columns: Sequence[np.ndarray]) -> None:
        """Writes ``samples/{iteration}.png`` from columns of images ``(B, H, W, 3)``."""
        path = self.out / "samples" / f"{iteration:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid(columns)).save(path)


def base_deviations(base: LatentBase, paper_px: int) -> list[str]:
    """Where a base differs from a paper's, as sentences for the card of a model trained on it."""
    found = list(base.about["deviations"])
    if base.size_px != paper_px:
        found.append(f"Images are {base.size_px} px, not {paper_px}.")
    return found
