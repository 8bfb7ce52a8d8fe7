"""Shift: a translation, with the gap filled by the mirrored mask."""

from __future__ import annotations

import numpy as np

from service.augmentations.transforms.base import Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.parameters import Shift
from service.augmentations.transforms.sampling import sample


def draw_shift(
    parameters: Shift, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`shift` should do with ``segmentation`` ``(H, W)``; None for nothing."""
    height, width = segmentation.shape
    down = round(float(rng.uniform(-parameters.max_shift, parameters.max_shift)) * height)
    across = round(float(rng.uniform(-parameters.max_shift, parameters.max_shift)) * width)
    return {"down_px": down, "across_px": across} if down or across else None


def shift(segmentation: Segmentation, *, down_px: int, across_px: int) -> Segmentation:
    """``(H, W)`` -> ``(H, W)``, moved down and to the right by whole pixels."""
    height, width = segmentation.shape
    return sample(segmentation, np.arange(height)[:, None] - down_px, np.arange(width)[None, :] - across_px)
