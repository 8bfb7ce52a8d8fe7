"""Dense Hint Input (section 3.4): a hint network for images as well as masks, in place of ControlNet's."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from model_store.weights import zero_module

HINT_CHANNELS = 3
PAPER_WIDTHS = (16, 32, 64, 128, 256)


class DenseHintConfig(BaseModel):
    """The shape of a hint network; it is stored in the card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dense", "sparse"] = Field(
        "dense", description="dense: DHI; sparse: ControlNet's own, the paper's baseline"
    )
    widths: tuple[int, ...] = Field(
        PAPER_WIDTHS, min_length=2, description="the first two at full size, each further one at half"
    )
    out_channels: int = Field(320, ge=1)

    @property
    def factor(self) -> int:
        """The hint's side over the features'."""
        return 1 << (len(self.widths) - 2)


class ResidualPair(nn.Module):
    """conv, SiLU, conv, plus the input, SiLU; no norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv2(F.silu(self.conv1(x)))
        return F.silu(x + change)


class PatchMerge(nn.Module):
    """Swin's patch merging: 2 x 2 pixels side by side, LayerNorm, Linear; ``(B, C, h, w)`` -> ``(B, 2C, h/2, w/2)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gathered = F.pixel_unshuffle(x, 2).permute(0, 2, 3, 1)
        merged: Tensor = self.reduce(self.norm(gathered))
        return merged.permute(0, 3, 1, 2)


class DenseHintInput(nn.Module):
    """Hint ``(B, 3, H, W)`` in [0, 1] -> features ``(B, out, H/f, W/f)``, zero until trained.

    The paper's has 3.26 M parameters.
    """

    def __init__(self, config: DenseHintConfig) -> None:
        super().__init__()
        first, second, *merged = config.widths
        layers: list[nn.Module] = [
            nn.Conv2d(HINT_CHANNELS, first, 3, padding=1),
            nn.SiLU(),
            ResidualPair(first),
            nn.Conv2d(first, second, 3, padding=1),
            nn.SiLU(),
            ResidualPair(second),
        ]
        width = second
        for wanted in merged:
            if wanted != 2 * width:
                raise ValueError(f"patch merging doubles the width: after {width} comes {2 * width}, not {wanted}")
            width = wanted
            layers += [PatchMerge(width // 2), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), ResidualPair(width)]
        self.layers = nn.Sequential(*layers, zero_module(nn.Conv2d(width, config.out_channels, 3, padding=1)))

    def forward(self, hint: Tensor) -> Tensor:
        features: Tensor = self.layers(hint)
        return features


def build_hint(config: DenseHintConfig) -> nn.Module:
    """DHI, or ControlNet's sparse hint network of the same factor."""
    if config.kind == "dense":
        return DenseHintInput(config)
    # ControlNet's: every width after the first halves the side
    widths = {1: (16,), 2: (16, 32), 4: (16, 32, 96), 8: (16, 32, 96, 256)}[config.factor]
    return ControlNetConditioningEmbedding(config.out_channels, HINT_CHANNELS, widths)


def mask_hint(indices: Tensor, colours: Tensor) -> Tensor:
    """The hint of masks: ``(B, H, W)`` int64 class indices, colours ``(K, 3)`` in [0, 1] -> ``(B, 3, H, W)`` in [0, 1].

    A binary mask's colours are black and white, so that its hint is the mask three times; several classes are ours.
    """
    return colours[indices].permute(0, 3, 1, 2).contiguous()


def image_hint(images: Tensor) -> Tensor:
    """The hint of images ``(B, 3, H, W)`` in [-1, 1]: the same in [0, 1]."""
    return (images + 1.0) / 2.0
