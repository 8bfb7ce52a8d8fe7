"""Spectron: spatio-spectral embedding fusion (CoSimGen, section 3.4, eq. 1 and 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model_store.weights import zero_module


class Spectron(nn.Module):
    """Adds the class embedding as one map over space, and the timestep embedding as one value per channel.

    f_cond = f + C_emb^i + T_emb^i with C_emb^i of ``1 x h x w`` (the same map for all channels) and T_emb^i of ``c x 1
    x 1``. The paper does not say how C_emb becomes a map. Here one Linear gives ``r x r`` values, r = min(h, limit),
    scaled up bilinearly where r < h: with limit >= h it is the literal reading, whose Linear grows with h^2.
    """

    def __init__(self, channels: int, size: int, embedding_dims: int, spatial_limit: int) -> None:
        super().__init__()
        self.size = size
        self.map_size = min(size, spatial_limit)
        # zero: a fixed random map over all features would be a prior on places that training must first unlearn
        self.spatial = zero_module(nn.Linear(embedding_dims, self.map_size**2))
        self.spectral = zero_module(nn.Linear(embedding_dims, channels))

    def forward(self, features: Tensor, class_embedding: Tensor, time_embedding: Tensor) -> Tensor:
        """features ``(B, c, h, w)``, embeddings ``(B, D)`` -> ``(B, c, h, w)``."""
        class_map: Tensor = self.spatial(class_embedding).view(-1, 1, self.map_size, self.map_size)
        if self.map_size != self.size:
            class_map = F.interpolate(class_map, size=(self.size, self.size), mode="bilinear", align_corners=False)
        time_values: Tensor = self.spectral(time_embedding)
        return features + class_map + time_values[:, :, None, None]
