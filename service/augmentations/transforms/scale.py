"""Scale: the same scene nearer or farther, its size in pixels kept."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from service.augmentations.transforms.base import Drawn, Strengths, TransformContext
from service.augmentations.transforms.sampling import affine


class Scale(Strengths):
    """Factors of length. Drawn evenly in their logarithm, so that half and double are alike."""

    low: float = Field(0.8, ge=0.25, le=4, description="Least factor of length, 0.25..4; below 1 things get smaller.")
    high: float = Field(1.25, ge=0.25, le=4, description="Largest factor of length, 0.25..4.")

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        factor = round(math.exp(rng.uniform(math.log(self.low), math.log(self.high))), 4)
        return {"factor": factor} if factor != 1 else None


def scale(labels: np.ndarray, *, factor: float) -> np.ndarray:
    """``(H, W)`` -> ``(H, W)``, lengths from the centre times ``factor``; what comes in at the borders is the mirrored
    mask."""
    return affine(labels, np.eye(2) / factor)
