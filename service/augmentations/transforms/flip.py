"""Flip: left for right, top for bottom, and turns by right angles."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from service.augmentations.transforms.base import Drawn, Strengths, TransformContext


class Flip(Strengths):
    """Which of them are true pictures is for the scene to say: a street has an up, a microscope's slide has none."""

    chance: float = Field(
        1.0, ge=0, le=1, description="Share of masks for which the kinds below are drawn, each half of the time."
    )
    horizontal: bool = Field(True, description="Left for right.")
    vertical: bool = Field(False, description="Top for bottom; for scenes that have no up.")
    quarter_turns: bool = Field(False, description="Turns by 90, 180 and 270 degrees; for scenes that have no up.")

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        horizontal = bool(rng.random() < 0.5) and self.horizontal
        vertical = bool(rng.random() < 0.5) and self.vertical
        turns = int(rng.integers(4)) if self.quarter_turns else 0
        if labels.shape[0] != labels.shape[1]:
            turns -= turns % 2  # a quarter turn would make another shape of it
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
