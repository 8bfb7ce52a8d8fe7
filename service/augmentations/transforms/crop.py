"""Crop: a square out of a mask, at a place that keeps the classes; drawn, or the best one."""

from __future__ import annotations

import numpy as np

from service.augmentations.transforms.base import IGNORE, Drawn, TransformContext, check_labels
from service.augmentations.transforms.parameters import Crop

_TRIES = 4
"""Windows that a crop is chosen from. More would always find the same one."""


def draw_crop(
    parameters: Crop, labels: np.ndarray, rng: np.random.Generator, context: TransformContext
) -> Drawn | None:
    """What :func:`crop` should do with ``labels`` ``(H, W)`` uint8; None for nothing."""
    height, width = labels.shape
    side = max(1, round(float(rng.uniform(parameters.low, parameters.high)) * min(height, width)))
    tops = rng.integers(height - side + 1, size=_TRIES)
    lefts = rng.integers(width - side + 1, size=_TRIES)
    if side == height == width:
        return None
    value = _value(labels, context.class_weights)
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
