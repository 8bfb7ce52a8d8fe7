"""Scale: the scene nearer or farther, with the same size in pixels."""

from __future__ import annotations

import math

import numpy as np

from service.augmentations.transforms.base import TransformArguments, TransformContext
from service.augmentations.transforms.parameters import Scale
from service.augmentations.transforms.sampling import affine


def draw_scale(
    parameters: Scale, labels: np.ndarray, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`scale` should do with ``labels`` ``(H, W)`` uint8; None for nothing."""
    factor = round(math.exp(rng.uniform(math.log(parameters.low), math.log(parameters.high))), 4)
    return {"factor": factor} if factor != 1 else None


def scale(labels: np.ndarray, *, factor: float) -> np.ndarray:
    """``(H, W)`` -> ``(H, W)``, scaled about the centre by ``factor``; borders are filled with the mirrored mask."""
    return affine(labels, np.eye(2) / factor)
