"""Rotate: by any angle about the centre."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from service.augmentations.transforms.base import Drawn, Strengths, TransformContext
from service.augmentations.transforms.sampling import affine


class Rotate(Strengths):
    """Drawn evenly between -``degrees`` and ``degrees``."""

    degrees: float = Field(10.0, ge=0, le=180, description="Most degrees either way, 0..180.")

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        angle = round(float(rng.uniform(-self.degrees, self.degrees)), 2)
        return {"degrees": angle} if angle else None


def rotate(labels: np.ndarray, *, degrees: float) -> np.ndarray:
    """``(H, W)`` -> ``(H, W)``, turned anticlockwise; what comes in at the corners is the mirrored mask."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return affine(labels, np.array([[cosine, sine], [-sine, cosine]]))
