"""Scale: the scene nearer or farther, with the same size in pixels."""

from __future__ import annotations

import math

import numpy as np

from service.augmentations.transforms.base import Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.parameters import Scale
from service.augmentations.transforms.sampling import affine


def draw_scale(
    parameters: Scale, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`scale` should do with ``segmentation`` ``(H, W)``; None for nothing."""
    factor = round(math.exp(rng.uniform(math.log(parameters.low), math.log(parameters.high))), 4)
    return {"factor": factor} if factor != 1 else None


def scale(segmentation: Segmentation, *, factor: float) -> Segmentation:
    """``(H, W)`` -> ``(H, W)``, scaled about the centre by ``factor``; borders are filled with the mirrored mask."""
    return affine(segmentation, np.eye(2) / factor)
