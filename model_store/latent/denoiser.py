"""The latent denoiser and its control copy: diffusers' U-Net and ControlNet (Zhang et al. 2023).

The hint network is not part of the control copy here: its features of a mask depend on neither x_t nor t, so they are
computed once a sample and given to the control copy at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

P = ParamSpec("P")
Module = TypeVar("Module", bound=nn.Module)


class DenoiserConfig(BaseModel):
    """The shape of a latent U-Net; it is stored in the card, and the networks are rebuilt from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent_channels: int = Field(4, ge=1)
    latent_px: int = Field(48, ge=4, description="side of the latent; 48 for 384 px at f8")
    widths: tuple[int, ...] = Field((320, 640, 1280, 1280), min_length=1)
    text_at: tuple[bool, ...] = Field((True, True, True, False), description="which levels attend to the text")
    layers_per_block: int = Field(2, ge=1)
    heads: tuple[int, ...] = Field((8, 8, 8, 8), description="attention heads at each level")
    text_dims: int = Field(768, ge=1, description="width of a text token's hidden state")
    norm_groups: int = Field(32, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> DenoiserConfig:
        if not len(self.widths) == len(self.text_at) == len(self.heads):
            raise ValueError(f"widths, text_at and heads must be as many: {self.widths}, {self.text_at}, {self.heads}")
        return self

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one latent."""
        return (self.latent_channels, self.latent_px, self.latent_px)

    @property
    def residuals(self) -> int:
        """The number of residuals from control copy to U-Net: 13 for Stable Diffusion's four levels of two layers."""
        levels = len(self.widths)
        return 1 + levels * self.layers_per_block + (levels - 1) + 1

    @property
    def hint_channels(self) -> int:
        """Channels of the hint features, which are added to the control copy's first convolution."""
        return self.widths[0]


def stable_diffusion_denoiser(latent_px: int = 48) -> DenoiserConfig:
    """Stable Diffusion 1.5's U-Net (859.5 M parameters)."""
    return DenoiserConfig(latent_px=latent_px)


def pathdiff_denoiser() -> DenoiserConfig:
    """PathDiff's: width 192, multipliers 1, 2, 3, 5, heads of 32 channels, text of 512 (LDM's 400.9 M parameters)."""
    widths = (192, 384, 576, 960)
    return DenoiserConfig(
        latent_channels=3,
        latent_px=64,
        widths=widths,
        text_at=(False, True, True, True),
        heads=tuple(width // 32 for width in widths),
        text_dims=512,
    )


def small_denoiser(latent_px: int, text_dims: int = 384) -> DenoiserConfig:
    """For CPUs: widths 64, 96, 128, one layer a level, text and attention at the smallest level and in the middle."""
    return DenoiserConfig(
        latent_px=latent_px,
        widths=(64, 96, 128),
        text_at=(False, False, True),
        layers_per_block=1,
        heads=(1, 2, 2),
        text_dims=text_dims,
        norm_groups=16,
    )


def build_unet(config: DenoiserConfig) -> UNet2DConditionModel:
    """The U-Net, untrained."""
    down = tuple("CrossAttnDownBlock2D" if text else "DownBlock2D" for text in config.text_at)
    up = tuple("CrossAttnUpBlock2D" if text else "UpBlock2D" for text in reversed(config.text_at))
    unet: UNet2DConditionModel = UNet2DConditionModel(
        sample_size=config.latent_px,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=config.widths,
        layers_per_block=config.layers_per_block,
        # diffusers' old name for the number of heads
        attention_head_dim=config.heads,
        cross_attention_dim=config.text_dims,
        norm_num_groups=config.norm_groups,
    )
    return unet


def control_copy(unet: UNet2DConditionModel) -> ControlNetModel:
    """A trainable copy of the U-Net's encoder and middle, whose residuals are zero until it is trained.

    It takes hint features ``(B, widths[0], h, w)`` as ``controlnet_cond``, not an image.
    """
    control: ControlNetModel = ControlNetModel.from_unet(unet)
    control.add_module("controlnet_cond_embedding", nn.Identity())
    return control


@dataclass(frozen=True)
class Residuals:
    """The control copy's additions to the U-Net's skip connections and middle: shallowest first, the middle last."""

    down: tuple[Tensor, ...]
    middle: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter((*self.down, self.middle))

    def detach(self) -> Residuals:
        """The same values without gradients (sg in the papers)."""
        return Residuals(tuple(value.detach() for value in self.down), self.middle.detach())

    def mixed(self, other: Residuals, own: float, others: float) -> Residuals:
        """own * self + others * other, one by one (Siamese-Diffusion, eq. 5)."""
        pairs = zip(self.down, other.down, strict=True)
        return Residuals(tuple(own * a + others * b for a, b in pairs), own * self.middle + others * other.middle)


def control_residuals(control: nn.Module, z: Tensor, t: Tensor, text: Tensor, hint: Tensor) -> Residuals:
    """The residuals, one a skip and the middle's.

    z ``(B, c, h, w)``, t ``(B,)``, text ``(B, L, d)``, hint ``(B, widths[0], h, w)``.
    """
    down, middle = control(z, t, encoder_hidden_states=text, controlnet_cond=hint, return_dict=False)
    return Residuals(tuple(down), middle)


def denoise(unet: nn.Module, z: Tensor, t: Tensor, text: Tensor, residuals: Residuals | None = None) -> Tensor:
    """The U-Net's output ``(B, c, h, w)``, with residuals or without."""
    extra: dict[str, Any] = {}
    if residuals is not None:
        extra = {"down_block_additional_residuals": residuals.down, "mid_block_additional_residual": residuals.middle}
    output: Tensor = unet(z, t, encoder_hidden_states=text, return_dict=False, **extra)[0]
    return output


def parameters_of(module: nn.Module) -> int:
    """The number of parameters of a network."""
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(build: Callable[P, Module], *args: P.args, **kwargs: P.kwargs) -> Module:
    """Builds a network without memory for its weights, to count them or to read its shapes."""
    with torch.device("meta"):
        return build(*args, **kwargs)
