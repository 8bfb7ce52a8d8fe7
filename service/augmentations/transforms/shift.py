"""Shift: everything moved, the gap filled with the mirrored mask."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from service.augmentations.transforms.base import Drawn, Strengths, TransformContext
from service.augmentations.transforms.sampling import sample


class Shift(Strengths):
    """Drawn evenly in a rectangle about no shift."""

    most: float = Field(0.1, ge=0, le=0.5, description="Most shift along each side, as a share of it, 0..0.5.")

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        height, width = labels.shape
        down = round(float(rng.uniform(-self.most, self.most)) * height)
        across = round(float(rng.uniform(-self.most, self.most)) * width)
        return {"down_px": down, "across_px": across} if down or across else None


def shift(labels: np.ndarray, *, down_px: int, across_px: int) -> np.ndarray:
    """``(H, W)`` -> ``(H, W)``, moved by whole pixels to below and to the right."""
    height, width = labels.shape
    return sample(labels, np.arange(height)[:, None] - down_px, np.arange(width)[None, :] - across_px)
