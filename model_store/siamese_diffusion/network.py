"""The trained parts of Siamese-Diffusion, with its two branches over one set of weights."""

from __future__ import annotations

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from model_store.latent.denoiser import Residuals, control_copy, control_residuals, denoise


class SiameseNetwork(nn.Module):
    """U-Net, its control copy, and the hint network. ``hint`` maps a mask's or an image's hint to features."""

    def __init__(self, unet: UNet2DConditionModel, hint: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.control = control_copy(unet)
        self.hint = hint

    def freeze_encoder(self) -> None:
        """Freezes the U-Net except for its decoder (up blocks and output)."""
        self.unet.requires_grad_(False)
        for part in (self.unet.up_blocks, self.unet.conv_norm_out, self.unet.conv_out):
            part.requires_grad_(True)

    def residuals(self, z: Tensor, t: Tensor, text: Tensor, hint: Tensor) -> Residuals:
        """c_m or c_i: the control of a hint ``(B, 3, H, W)`` in [0, 1]."""
        return control_residuals(self.control, z, t, text, self.hint(hint))

    def denoise(self, z: Tensor, t: Tensor, text: Tensor, residuals: Residuals) -> Tensor:
        """eps_theta(z_t, t, c_t, c): gradients reach the U-Net and the control."""
        return denoise(self.unet, z, t, text, residuals)

    def denoise_by_copy(self, z: Tensor, t: Tensor, text: Tensor, residuals: Residuals) -> Tensor:
        """eps_theta'(z_t, t, c_t, c) of eq. 8: the same U-Net as a copy that is not trained, without copying it."""
        frozen = {name: parameter.detach() for name, parameter in self.unet.named_parameters()}
        module = _Called(self.unet)
        parameters = {f"unet.{name}": value for name, value in frozen.items()}
        output: Tensor = torch.func.functional_call(module, parameters, (z, t, text, residuals))
        return output


class _Called(nn.Module):
    """A U-Net whose call is :func:`denoise`, so that its parameters can be replaced for that call."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, z: Tensor, t: Tensor, text: Tensor, residuals: Residuals) -> Tensor:
        return denoise(self.unet, z, t, text, residuals)
