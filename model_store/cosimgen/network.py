"""CoSimGen's generator: the three encoders and the U-Net together, the part that a model folder stores."""

from __future__ import annotations

from torch import Tensor, nn

from model_store.cosimgen.config import CoSimGenConfig
from model_store.cosimgen.encoders import ClassEncoder, TextEncoder, TimestepEncoder
from model_store.cosimgen.unet import ConditionalUNet


class CoSimGenNetwork(nn.Module):
    """Denoises a pair under a condition that is a class embedding or, hot-swapped, a text embedding."""

    def __init__(self, config: CoSimGenConfig) -> None:
        super().__init__()
        self.config = config
        self.class_encoder = ClassEncoder(config.num_classes, config.class_feature_dims, config.embedding_dims)
        self.text_encoder = TextEncoder(config.text_dims, config.embedding_dims)
        self.timestep_encoder = TimestepEncoder(config.embedding_dims)
        self.unet = ConditionalUNet(config)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """x ``(B, 6, h, w)``, t ``(B,)`` int64, condition ``(B, D)`` (of either encoder) -> output ``(B, 6, h, w)``."""
        output: Tensor = self.unet(x, condition, self.timestep_encoder(t))
        return output
