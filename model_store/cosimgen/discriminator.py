"""CoSimGen's discriminator (section 3.7.2): convolutions and a linear layer, pairs -> the probability of being real."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from model_store.cosimgen.config import PAIR_CHANNELS


class Discriminator(nn.Module):
    """``(B, 6, h, w)`` in [-1, 1] -> logits ``(B,)``; the sigmoid of a logit is the paper's D(x) in (0, 1)."""

    def __init__(self, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        widths = [PAIR_CHANNELS, *(width * 2 ** min(i, 2) for i in range(layers))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 4, stride=2, padding=1) for c_in, c_out in itertools.pairwise(widths)
        )
        self.linear = nn.Linear(widths[-1], 1)

    def forward(self, pairs: Tensor) -> Tensor:
        h = pairs
        for convolution in self.convolutions:
            h = F.leaky_relu(convolution(h), 0.2)
        logits: Tensor = self.linear(h.mean(dim=(2, 3)))
        return logits.squeeze(1)
