"""A latent model as a :class:`model_store.interface.System`; the two papers differ in their conditions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from model_store.canvas.windows import Windows
from model_store.card import ModelCard
from model_store.interface import (
    Condition,
    ConditionRequest,
    GuidanceInputs,
    WeightsInvalid,
)
from model_store.latent.autoencoder import AutoencoderConfig, build_autoencoder, decode_latents
from model_store.latent.denoiser import DenoiserConfig, build_unet, control_copy, control_residuals, denoise
from model_store.latent.text import TokenEncoder, load_token_encoder
from model_store.masks.decode import Twin, to_pixels
from model_store.weights import load_network, to_channels_last, to_device

Module = TypeVar("Module", bound=nn.Module)
WEIGHTS_FILE = "model.safetensors"
PARTS = ("autoencoder", "unet", "control", "hint")
"""The networks of a model folder: each one's tensors carry its name as their prefix."""


def class_colours(card: ModelCard) -> Tensor:
    """The classes' colours as ``(K, 3)`` float32 in [0, 1]."""
    return torch.tensor([entry.colour for entry in card.classes], dtype=torch.float32) / 255.0


class LatentSystem(ABC):
    """Autoencoder, U-Net, control copy and hint network on one device.

    U-Net and control copy run in ``dtype``; hint network and autoencoder, which run once a sample, stay float32.
    Conditions are computed and images decoded one by one, so that no sample's bits depend on the other samples of its
    batch.
    """

    name: ClassVar[str]

    def __init__(
        self,
        card: ModelCard,
        autoencoder: AutoencoderKL,
        unet: UNet2DConditionModel,
        control: ControlNetModel,
        hint: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        *,
        tokens: TokenEncoder | None = None,
    ) -> None:
        """``tokens`` replaces the card's text encoder, which is otherwise loaded at the first text."""
        config = DenoiserConfig.model_validate(card.network["denoiser"])
        self.card, self.device, self.dtype = card, device, dtype
        self.sample_shape = config.latent_shape
        if card.text_encoder is None:
            raise WeightsInvalid(
                f"the card of {card.id} names no text encoder; {self.name} reads its text by cross-attention"
            )
        self.condition_shapes = {
            "text": (card.text_encoder.max_tokens, card.text_encoder.dims),
            "hint": (config.hint_channels, config.latent_px, config.latent_px),
        }
        self.colours = class_colours(card).to(device)
        self._tokens = tokens
        self.autoencoder, self.hint = to_device(autoencoder, device), to_device(hint, device)
        self.unet, self.control = to_channels_last(unet, device, dtype), to_channels_last(control, device, dtype)
        for network in (self.autoencoder, self.hint, self.unet, self.control):
            network.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: Path, card: ModelCard, device: torch.device, dtype: torch.dtype) -> Self:
        """Builds the networks that the card describes and fills them from ``model.safetensors``."""
        autoencoder = AutoencoderConfig.model_validate(card.network["autoencoder"])
        denoiser = DenoiserConfig.model_validate(card.network["denoiser"])
        path = folder / WEIGHTS_FILE

        def loaded(name: str, build: Callable[[], Module], number_format: torch.dtype = torch.float32) -> Module:
            try:
                return load_network(build, path, f"{name}.", device=device, dtype=lambda _: number_format)
            except RuntimeError as error:
                raise WeightsInvalid(f"{path} does not fit the {name} of {card.id}: {error}") from None

        return cls(
            card,
            autoencoder=loaded("autoencoder", lambda: build_autoencoder(autoencoder)),
            unet=loaded("unet", lambda: build_unet(denoiser), dtype),
            control=loaded("control", lambda: control_copy(build_unet(denoiser)), dtype),
            hint=loaded("hint", lambda: cls.build_hint(card)),
            device=device,
            dtype=dtype,
        )

    @classmethod
    @abstractmethod
    def build_hint(cls, card: ModelCard) -> nn.Module:
        """The hint network that the card describes, untrained."""

    @abstractmethod
    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        """Text tokens ``(L, d)`` and hint features ``(widths[0], h, w)``, on both sides of guidance."""

    def text_tokens(self, text: str) -> Tensor:
        """``(L, d)`` float32 on the device; "" is the null text."""
        if self._tokens is None:
            assert self.card.text_encoder is not None
            self._tokens = load_token_encoder(self.card.text_encoder)
        return self._tokens.encode(text).to(self.device)

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The controlled U-Net's output in float32, ``(B, c, h, w)``."""
        with torch.no_grad():
            z = x.to(dtype=self.dtype, memory_format=torch.channels_last)
            text, hint = (
                condition["text"].to(self.dtype),
                condition["hint"].to(dtype=self.dtype, memory_format=torch.channels_last),
            )
            residuals = control_residuals(self.control, z, t, text, hint)
            return denoise(self.unet, z, t, text, residuals).float()

    def decode(self, x0: Tensor, size_px: int, windows: Windows | None = None) -> list[Twin]:
        """Images of the latents, without masks. Raises ValueError for a size that the card does not list."""
        if size_px not in self.card.sizes_px:
            raise ValueError(f"{self.card.id} makes sizes {list(self.card.sizes_px)}, not {size_px}")
        with torch.no_grad():
            return [Twin(to_pixels(self._image(z, windows))[0]) for z in x0.float().chunk(len(x0))]

    def _image(self, z: Tensor, windows: Windows | None) -> Tensor:
        """The image ``(1, 3, H, W)`` of one latent.

        A canvas is decoded window by window, and the images are averaged by smooth weights: the decoder's norms then
        see what they saw in training, and its memory does not grow with the canvas. One window gives the plain image.
        """
        if windows is None:
            return decode_latents(self.autoencoder, z)
        fine = replace(windows, weights="smooth").scaled(self.card.generation_size_px // windows.side)
        image = torch.zeros((1, 3, fine.height, fine.width), device=z.device)
        for number in range(len(windows)):
            part = decode_latents(self.autoencoder, z[:, :, *windows.place(number)].contiguous())
            image[:, :, *fine.place(number)] += torch.from_numpy(fine.weight(number)).to(z.device) * part
        return image

    def check_mask(self, request: ConditionRequest) -> None:
        """Raises ValueError for a mask of another size, or with an index that is no class of the card."""
        if request.mask is None:
            return
        size, indices = self.card.generation_size_px, request.mask.indices
        if indices.shape != (size, size):
            raise ValueError(
                f"the mask is {indices.shape[1]} x {indices.shape[0]} px; {self.card.id} takes {size} x {size}"
            )
        if indices.max() >= len(self.card.classes):
            raise ValueError(
                f"the mask holds index {indices.max()}; {self.card.id} has classes 0 to {len(self.card.classes) - 1}"
            )
