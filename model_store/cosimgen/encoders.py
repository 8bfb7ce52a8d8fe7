"""CoSimGen's encoders (sections 3.3.1 to 3.3.3): classes, text and timestep, each to a D-dimensional embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def projection(input_dims: int, output_dims: int) -> nn.Sequential:
    """The paper's "series of linear transformations": two, with SiLU between."""
    return nn.Sequential(nn.Linear(input_dims, output_dims), nn.SiLU(), nn.Linear(output_dims, output_dims))


class ClassEncoder(nn.Module):
    """Rows of W_c masked by the multi-hot M and summed, then projected.

    M = 0 gives the zero vector: the null condition.
    """

    def __init__(self, num_classes: int, feature_dims: int, embedding_dims: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, feature_dims) / math.sqrt(feature_dims))
        self.project = projection(feature_dims, embedding_dims)

    def forward(self, multi_hot: Tensor) -> Tensor:
        """multi_hot ``(B, K)`` in {0, 1} -> C_emb ``(B, D)``."""
        embedding: Tensor = self.project(multi_hot.to(self.weight.dtype) @ self.weight)
        return embedding


class TextEncoder(nn.Module):
    """The trained part of the text encoder: it projects the frozen sentence transformer's embedding."""

    def __init__(self, text_dims: int, embedding_dims: int) -> None:
        super().__init__()
        self.project = projection(text_dims, embedding_dims)

    def forward(self, sentence_embedding: Tensor) -> Tensor:
        """sentence_embedding ``(B, text_dims)`` -> Z_emb ``(B, D)``."""
        embedding: Tensor = self.project(sentence_embedding)
        return embedding


class TimestepEncoder(nn.Module):
    """Sinusoidal features of t (as in DDPM), then projected."""

    frequencies: Tensor

    def __init__(self, embedding_dims: int) -> None:
        super().__init__()
        half = embedding_dims // 2
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.project = projection(2 * half, embedding_dims)

    def forward(self, t: Tensor) -> Tensor:
        """t ``(B,)`` int64 in [0, T) -> T_emb ``(B, D)``."""
        angles = t.to(torch.float32)[:, None] * self.frequencies[None]
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        embedding: Tensor = self.project(features.to(next(self.project.parameters()).dtype))
        return embedding
