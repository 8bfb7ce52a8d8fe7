"""Crop: a square out of a mask, at a place that keeps the classes; at random, or the best one."""

from __future__ import annotations

import numpy as np

from service.augmentations.transforms.base import IGNORE, Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.parameters import Crop

_SQUARES = 4
"""Random squares that a crop is chosen from; with more of them, the same one would always win."""


def draw_crop(
    parameters: Crop, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`crop` should do with ``segmentation`` ``(H, W)``; None for nothing."""
    labels = segmentation.labels
    height, width = labels.shape
    side = max(1, round(float(rng.uniform(parameters.low, parameters.high)) * min(height, width)))
    tops = rng.integers(height - side + 1, size=_SQUARES)
    lefts = rng.integers(width - side + 1, size=_SQUARES)
    if side == height == width:
        return None
    value = _value(labels, context.class_weights)
    kept = [
        float(np.bincount(labels[top : top + side, left : left + side].reshape(-1), minlength=256) @ value)
        for top, left in zip(tops, lefts, strict=True)
    ]
    best = int(np.argmax(kept))
    if kept[best] == 0:
        return None  # all of them contain nothing but 255
    return {"top": int(tops[best]), "left": int(lefts[best]), "side": side}


def crop(segmentation: Segmentation, *, top: int, left: int, side: int) -> Segmentation:
    """``(H, W)`` -> ``(side, side)``."""
    return segmentation.each(lambda values: values[top : top + side, left : left + side])


def frame(labels: np.ndarray, class_weights: np.ndarray | None = None) -> TransformArguments:
    """The square of the shorter side that keeps most of the classes of ``(H, W)``, as the parameters of :func:`crop`.

    Each class counts by the share of its pixels that is kept, times its ``class_weights`` ``(256,)``, so that a small
    object weighs as much as a large background. Of several such squares it is the one nearest to the centre.
    """
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
    """The value of a pixel of each label ``(256,)``: all pixels of a class together have the value of its weight."""
    counts = np.bincount(labels.reshape(-1), minlength=256)
    value = (np.ones(256) if class_weights is None else class_weights) / np.maximum(counts, 1)
    value[IGNORE] = 0
    return value
