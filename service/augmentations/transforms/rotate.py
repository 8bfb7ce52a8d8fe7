"""Rotate: a rotation by any angle about the centre."""

from __future__ import annotations

import math

import numpy as np

from service.augmentations.transforms.base import Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.parameters import Rotate
from service.augmentations.transforms.sampling import affine


def draw_rotate(
    parameters: Rotate, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`rotate` should do with ``segmentation`` ``(H, W)``; None for nothing."""
    angle = round(float(rng.uniform(-parameters.degrees, parameters.degrees)), 2)
    return {"degrees": angle} if angle else None


def rotate(segmentation: Segmentation, *, degrees: float) -> Segmentation:
    """``(H, W)`` -> ``(H, W)``, rotated anticlockwise; the corners are filled with the mirrored mask."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return affine(segmentation, np.array([[cosine, sine], [-sine, cosine]]))
