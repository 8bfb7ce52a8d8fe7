"""ESPCN (Shi et al. 2016): all convolutions run at the low resolution, and a pixel shuffle gives the high one.

Image and painted mask go through one network together, as 6 channels. It doubles a size, and is trained at both scales
that it is used at, so that it can be applied twice (CoSimGen, section 3.6).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from model_store.weights import zero_module

IMAGE_CHANNELS, PAIR_CHANNELS = 3, 6
FACTOR = 2

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class ESPCNConfig(BaseModel):
    """The shape of an ESPCN; it is stored in the card, and the network is rebuilt from it.

    The defaults are the paper's: (f1, n1) = (5, 64), (f2, n2) = (3, 32), f3 = 3, tanh.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[tuple[int, int], ...] = Field(((5, 64), (3, 32)), description="(kernel, width) of each hidden layer")
    last_kernel: int = 3
    residual_blocks: int = Field(
        0, ge=0, description="of two 3x3 convolutions each, after the hidden layers; the paper has none"
    )
    activation: Literal["tanh", "relu"] = "tanh"
    skip: Literal["none", "bilinear"] = Field(
        "none", description="what the shuffled output is added to; the paper adds it to nothing"
    )
    keeps_means: bool = Field(
        False, description="whether the enlarged image, averaged, is the small one again; the paper's need not be"
    )


def paper_espcn() -> ESPCNConfig:
    """The ESPCN of Shi et al., section 3.1, here with 6 channels."""
    return ESPCNConfig()


def small_espcn() -> ESPCNConfig:
    """Deeper, narrow enough for CPUs (about 0.25 M parameters), and adding its output to the bilinear enlargement."""
    return ESPCNConfig(layers=((5, 64),), residual_blocks=3, activation="relu", skip="bilinear", keeps_means=True)


class _Residual(nn.Module):
    """x + conv(activation(conv(x))), at the low resolution."""

    def __init__(self, width: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), activation(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.body(x)
        return x + change


class ESPCN(nn.Module):
    """``(B, 6, h, w)`` in [-1, 1] -> ``(B, 6, 2h, 2w)``, near [-1, 1].

    The output is not clamped, so that gradients survive at the ends of the range.
    """

    def __init__(self, config: ESPCNConfig) -> None:
        super().__init__()
        self.config = config
        activation = _ACTIVATIONS[config.activation]
        parts: list[nn.Module] = []
        width = PAIR_CHANNELS
        for kernel, widened in config.layers:
            parts += [nn.Conv2d(width, widened, kernel, padding=kernel // 2), activation()]
            width = widened
        parts += [_Residual(width, activation) for _ in range(config.residual_blocks)]
        last = nn.Conv2d(width, PAIR_CHANNELS * FACTOR**2, config.last_kernel, padding=config.last_kernel // 2)
        if config.skip != "none":
            # an untrained network is then the plain enlargement
            zero_module(last)
        self.body = nn.Sequential(*parts, last)

    def forward(self, x: Tensor) -> Tensor:
        """One doubling."""
        high = F.pixel_shuffle(self.body(x), FACTOR)
        if self.config.skip == "bilinear":
            high = high + F.interpolate(x, scale_factor=FACTOR, mode="bilinear", align_corners=False)
        return keep_means(high, x) if self.config.keeps_means else high


def keep_means(high: Tensor, low: Tensor) -> Tensor:
    """Shifts ``high`` so that each 2 x 2 pixels of its image average to the pixel of ``low``.

    ``high`` is ``(B, 6, 2h, 2w)``, ``low`` ``(B, 6, h, w)``.

    A small real image is the average of the large one, so this is what any true enlargement keeps. A small mask is not:
    its pixels take the class that covers most of them. The painted mask is left alone.
    """
    image = slice(0, IMAGE_CHANNELS)
    lost = low[:, image] - F.avg_pool2d(high[:, image], FACTOR)
    return torch.cat(
        [high[:, image] + F.interpolate(lost, scale_factor=FACTOR, mode="nearest"), high[:, IMAGE_CHANNELS:]], dim=1
    )


def upscale(model: nn.Module, x0: Tensor, times: int) -> Tensor:
    """Applies ``model`` ``times`` times: ``(B, 6, h, w)`` in [-1, 1] -> ``(B, 6, h 2^times, w 2^times)``, clamped.

    Without gradients. ``times`` = 0 gives the clamped input. Raises ValueError for a negative ``times``.
    """
    if times < 0:
        raise ValueError(f"a pair is enlarged 0 times or more, not {times}")
    x = x0.clamp(-1.0, 1.0)
    with torch.no_grad():
        for _ in range(times):
            x = model(x).clamp(-1.0, 1.0)
    return x
