"""Flip: horizontally, vertically, and rotations by right angles."""

from __future__ import annotations

import numpy as np

from service.augmentations.transforms.base import Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.parameters import Flip


def draw_flip(
    parameters: Flip, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`flip` should do with ``segmentation`` ``(H, W)``; None for nothing."""
    horizontal = bool(rng.random() < 0.5) and parameters.horizontal
    vertical = bool(rng.random() < 0.5) and parameters.vertical
    turns = int(rng.integers(4)) if parameters.quarter_turns else 0
    if segmentation.shape[0] != segmentation.shape[1]:
        turns -= turns % 2  # a quarter turn would change the shape
    if not (horizontal or vertical or turns):
        return None
    return {"horizontal": horizontal, "vertical": vertical, "turns": turns}


def flip(segmentation: Segmentation, *, horizontal: bool, vertical: bool, turns: int) -> Segmentation:
    """``(H, W)`` flipped, then turned anticlockwise ``turns`` times by 90 degrees; ``(W, H)`` after an odd number."""
    rows = slice(None, None, -1 if vertical else 1)
    columns = slice(None, None, -1 if horizontal else 1)
    return segmentation.each(lambda values: np.rot90(values[rows, columns], turns))
