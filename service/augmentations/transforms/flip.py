"""Flip: horizontally, vertically, and rotations by right angles."""

from __future__ import annotations

import numpy as np

from service.augmentations.transforms.base import TransformArguments, TransformContext
from service.augmentations.transforms.parameters import Flip


def draw_flip(
    parameters: Flip, labels: np.ndarray, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`flip` should do with ``labels`` ``(H, W)`` uint8; None for nothing."""
    horizontal = bool(rng.random() < 0.5) and parameters.horizontal
    vertical = bool(rng.random() < 0.5) and parameters.vertical
    turns = int(rng.integers(4)) if parameters.quarter_turns else 0
    if labels.shape[0] != labels.shape[1]:
        turns -= turns % 2  # a quarter turn would change the shape
    if not (horizontal or vertical or turns):
        return None
    return {"horizontal": horizontal, "vertical": vertical, "turns": turns}


def flip(labels: np.ndarray, *, horizontal: bool, vertical: bool, turns: int) -> np.ndarray:
    """``(H, W)`` flipped, then turned anticlockwise ``turns`` times by 90 degrees; ``(W, H)`` after an odd number."""
    if horizontal:
        labels = labels[:, ::-1]
    if vertical:
        labels = labels[::-1]
    return np.ascontiguousarray(np.rot90(labels, turns))
