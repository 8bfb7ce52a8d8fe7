"""The shape of a CoSimGen network, which is stored in the card and from which the network is rebuilt."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

IMAGE_CHANNELS = 3
PAIR_CHANNELS = 6
"""RGB image and mask painted in F-RGB, both in [-1, 1]."""


class CoSimGenConfig(BaseModel):
    """Sizes of the conditional U-Net and its encoders. The defaults are the paper's (section 4) where it gives any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(ge=2, le=255)
    size_px: int = 128
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    blocks_per_level: int = 2
    embedding_dims: int = Field(256, description="D: the width of the class, text and timestep embeddings")
    class_feature_dims: int = Field(128, description="d: the width of a row of W_c")
    text_dims: int = Field(384, description="the width of the sentence transformer's embedding")
    spatial_limit: int = Field(
        16,
        description="Spectron draws its class map at min(h, limit) and scales it up; >= h is the paper's literal "
        "reading",
    )
    stem: Literal[1, 2, 4] = Field(1, description="space-to-depth factor before the first level; 1 is the paper's")
    attention_sizes: tuple[int, ...] = Field((), description="feature sizes with self-attention; the paper's has none")
    norm_groups: int = 8
    dropout: float = Field(0.0, ge=0.0, lt=1.0)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(6, h, w): the shape of one noisy pair."""
        return (PAIR_CHANNELS, self.size_px, self.size_px)


def paper_config(num_classes: int) -> CoSimGenConfig:
    """The paper's network: 128 px, width 64, multipliers 1, 2, 4, 8 (about 36 M parameters)."""
    return CoSimGenConfig(num_classes=num_classes)


def toy_config(num_classes: int) -> CoSimGenConfig:
    """For a first try in a minute on a CPU: 32 px, width 32, multipliers 1, 2 (about 0.5 M parameters)."""
    return CoSimGenConfig(
        num_classes=num_classes,
        size_px=32,
        width=32,
        multipliers=(1, 2),
        blocks_per_level=1,
        embedding_dims=64,
        class_feature_dims=32,
        stem=2,
    )


def small_config(num_classes: int) -> CoSimGenConfig:
    """For CPUs: 64 px behind a space-to-depth stem of 2, width 128, multipliers 1, 1, 2, attention at 16 and 8."""
    return CoSimGenConfig(
        num_classes=num_classes,
        size_px=64,
        width=128,
        multipliers=(1, 1, 2),
        blocks_per_level=1,
        stem=2,
        attention_sizes=(16, 8),
    )
