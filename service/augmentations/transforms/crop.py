"""Crop: a square out of a mask, at a place that keeps the classes; drawn, or the best one."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from service.augmentations.transforms.base import IGNORE, Drawn, Strengths, TransformContext, check_labels

_TRIES = 4
"""Windows that a crop is chosen from. More would always find the same one."""


class Crop(Strengths):
    """Of a few windows at random the one that keeps most of the classes, the wanted ones before others."""

    low: float = Field(
        0.6, gt=0, le=1, description="Least side of the square, as a share of the shorter side, above 0..1."
    )
    high: float = Field(
        1.0, gt=0, le=1, description="Largest side of the square, as a share of the shorter side, above 0..1."
    )

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        height, width = labels.shape
        side = max(1, round(float(rng.uniform(self.low, self.high)) * min(height, width)))
        tops = rng.integers(height - side + 1, size=_TRIES)
        lefts = rng.integers(width - side + 1, size=_TRIES)
        if side == height == width:
            return None
        value = _value(labels, scene.class_weights)
        kept = [
            float(np.bincount(labels[top : top + side, left : left + side].reshape(-1), minlength=256) @ value)
            for top, left in zip(tops, lefts)
        ]
        best = int(np.argmax(kept))
        if kept[best] == 0:
            return None  # nothing but 255 in any of them
        return {"top": int(tops[best]), "left": int(lefts[best]), "side": side}


def crop(labels: np.ndarray, *, top: int, left: int, side: int) -> np.ndarray:
    """``(H, W)`` -> ``(side, side)``."""
    return np.ascontiguousarray(labels[top : top + side, left : left + side])


def frame(labels: np.ndarray, class_weights: np.ndarray | None = None) -> Drawn:
    """The square of the shorter side that keeps most of the classes of ``(H, W)``, as the parameters of :func:`crop`.

    Each class counts by the share of its pixels that is kept, times its ``class_weights`` ``(256,)``, so that a small
    object weighs as much as a large ground. Of several such windows it is the one nearest to the middle.
    """
    check_labels(labels)
    height, width = labels.shape
    side = min(height, width)
    if height == width:
        return {"top": 0, "left": 0, "side": side}
    upright = labels if height > width else labels.T
    lines, length = upright.shape[0], upright.shape[1]
    keys = np.arange(lines)[:, None] * 256 + upright
    value = np.bincount(keys.reshape(-1), minlength=lines * 256).reshape(lines, 256) @ _value(labels, class_weights)
    reached = np.concatenate([[0.0], np.cumsum(value)])
    kept = reached[length:] - reached[:-length]
    best = np.flatnonzero(kept >= kept.max() - 1e-9)
    place = int(best[np.argmin(np.abs(2 * best - (lines - length)))])
    return {"top": place if height > width else 0, "left": 0 if height > width else place, "side": side}


def _value(labels: np.ndarray, class_weights: np.ndarray | None) -> np.ndarray:
    """What a pixel of each label is worth ``(256,)``: the pixels of a class are worth its favour together."""
    counts = np.bincount(labels.reshape(-1), minlength=256)
    value = (np.ones(256) if class_weights is None else class_weights) / np.maximum(counts, 1)
    value[IGNORE] = 0
    return value
