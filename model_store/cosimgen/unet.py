"""The conditional residual U-Net of CoSimGen (section 3.3.4), conditioned by Spectron in every residual block."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.cosimgen.config import PAIR_CHANNELS, CoSimGenConfig
from model_store.cosimgen.spectron import Spectron
from model_store.weights import zero_module


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, norm, Spectron, SiLU, conv, plus the input; ``(B, c_in, h, w)`` -> ``(B, c_out, h, w)``.

    The paper does not say where in a block Spectron adds. After the second norm neither of its additions can drown the
    features in the norm's variance.
    """

    def __init__(self, c_in: int, c_out: int, size: int, config: CoSimGenConfig) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(config.norm_groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.spectron = Spectron(c_out, size, config.embedding_dims, config.spatial_limit)
        self.norm2 = nn.GroupNorm(config.norm_groups, c_out)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = zero_module(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, class_embedding: Tensor, time_embedding: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x)))
        h = self.spectron(self.norm2(h), class_embedding, time_embedding)
        h = self.conv2(self.dropout(F.silu(h)))
        skip: Tensor = self.skip(x)
        return h + skip


class SelfAttention(nn.Module):
    """Attention over all positions, heads of 64 channels or fewer, residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_module(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        # (B, 3, heads, c/heads, hw) -> three of (B, heads, hw, c/heads)
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2)
        mixed = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        change: Tensor = self.out(mixed.transpose(-1, -2).reshape(b, c, h, w))
        return x + change


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention where the config asks for it at this size."""

    def __init__(self, inputs: list[int], c_out: int, size: int, config: CoSimGenConfig) -> None:
        super().__init__()
        attends = size in config.attention_sizes
        self.blocks = nn.ModuleList(ResidualBlock(c_in, c_out, size, config) for c_in in inputs)
        self.attention = nn.ModuleList(
            SelfAttention(c_out, config.norm_groups) if attends else nn.Identity() for _ in inputs
        )

    def layers(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Each block with the attention that follows it."""
        return zip(self.blocks, self.attention, strict=True)


class ConditionalUNet(nn.Module):
    """Noisy pair, timestep embedding and class (or text) embedding -> noise or velocity, as the card says which.

    Each encoder level runs at the width of its input and widens on its way down; the decoder mirrors it, and every
    block of the encoder sends a skip connection to its mirror.
    """

    def __init__(self, config: CoSimGenConfig) -> None:
        super().__init__()
        widths = [config.width, *(config.width * m for m in config.multipliers)]
        depth, blocks = len(config.multipliers), config.blocks_per_level
        sizes = [config.size_px // config.stem // 2**i for i in range(depth)]
        channels = PAIR_CHANNELS * config.stem**2
        self.stem = config.stem
        self.input = nn.Conv2d(channels, config.width, 3, padding=1)
        self.down, self.downsample = nn.ModuleList(), nn.ModuleList()
        for i in range(depth):
            self.down.append(Level([widths[i]] * blocks, widths[i], sizes[i], config))
            last = i == depth - 1
            self.downsample.append(
                nn.Conv2d(widths[i], widths[i + 1], 3, padding=1)
                if last
                else nn.Conv2d(widths[i], widths[i + 1], 2, stride=2)
            )
        self.middle = Level([widths[-1]] * 2, widths[-1], sizes[-1], config)
        self.up, self.upsample = nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(depth)):
            self.up.append(Level([widths[i + 1] + widths[i]] * blocks, widths[i + 1], sizes[i], config))
            self.upsample.append(nn.Conv2d(widths[i + 1], widths[i], 3, padding=1))
        self.output_block = ResidualBlock(2 * config.width, config.width, sizes[0], config)
        self.output_norm = nn.GroupNorm(config.norm_groups, config.width)
        self.output = zero_module(nn.Conv2d(config.width, channels, 3, padding=1))

    def forward(self, x: Tensor, class_embedding: Tensor, time_embedding: Tensor) -> Tensor:
        """x ``(B, 6, h, w)``, embeddings ``(B, D)`` -> ``(B, 6, h, w)``."""
        time_embedding = F.silu(time_embedding)
        if self.stem > 1:
            x = F.pixel_unshuffle(x, self.stem)
        first = h = self.input(x)
        skips: list[Tensor] = []
        for level, downsample in zip(_levels(self.down), self.downsample, strict=True):
            for block, attend in level.layers():
                h = attend(block(h, class_embedding, time_embedding))
                skips.append(h)
            h = downsample(h)
        for block, attend in self.middle.layers():
            h = attend(block(h, class_embedding, time_embedding))
        for level, upsample in zip(_levels(self.up), self.upsample, strict=True):
            for block, attend in level.layers():
                h = attend(block(torch.cat([h, skips.pop()], dim=1), class_embedding, time_embedding))
            if skips:
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = upsample(h)
        h = self.output_block(torch.cat([h, first], dim=1), class_embedding, time_embedding)
        h = self.output(F.silu(self.output_norm(h)))
        return F.pixel_shuffle(h, self.stem) if self.stem > 1 else h


def _levels(modules: nn.ModuleList) -> Iterator[Level]:
    for module in modules:
        assert isinstance(module, Level)
        yield module
