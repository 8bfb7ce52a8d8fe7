"""Seeded noise of one sample: drawn on the CPU in float32, whatever device then computes with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SampleNoise:
    """The stream of Gaussian noise of one sample.

    The first draw is x_T; the following ones are DDIM's, when eta > 0.
    """

    def __init__(self, seed: int, shape: Sequence[int]) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._shape = tuple(shape)

    def draw(self) -> Tensor:
        """The next noise of the stream: float32 on the CPU, of the sample's shape ``(C, h, w)``."""
        return torch.randn(self._shape, generator=self._generator, dtype=torch.float32, device="cpu")


def initial_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """x_T of the sample with this seed: the first draw of its :class:`SampleNoise`."""
    return SampleNoise(seed, shape).draw()
