"""Crop: a square or a part of a mask's own shape, at a place that keeps the classes; at random, or the best one."""

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
    share = float(rng.uniform(parameters.low, parameters.high))
    least_px = context.framing.least_px
    tall, wide = (min(whole, max(least_px, round(share * whole))) for whole in context.framing.part(segmentation.shape))
    tops = rng.integers(height - tall + 1, size=_SQUARES)
    lefts = rng.integers(width - wide + 1, size=_SQUARES)
    if (tall, wide) == (height, width):
        return None
    value = _value(labels, context.class_weights)
    kept = [
        float(np.bincount(labels[top : top + tall, left : left + wide].reshape(-1), minlength=256) @ value)
        for top, left in zip(tops, lefts, strict=True)
    ]
    best = int(np.argmax(kept))
    if kept[best] == 0:
        return None  # all of them contain nothing but 255
    place = {"top": int(tops[best]), "left": int(lefts[best])}
    return {**place, "side": tall} if context.framing.square else {**place, "height": tall, "width": wide}


def crop(
    segmentation: Segmentation, *, top: int, left: int, side: int = 0, height: int = 0, width: int = 0
) -> Segmentation:
    """``(H, W)`` -> ``(side, side)``, or ``(height, width)``."""
    rows, columns = slice(top, top + (side or height)), slice(left, left + (side or width))
    return segmentation.each(lambda values: values[rows, columns])


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


def centre(shape: tuple[int, int], side: int) -> TransformArguments:
    """The square of a side in the middle of ``(H, W)``."""
    return {"top": (shape[0] - side) // 2, "left": (shape[1] - side) // 2, "side": side}


def _value(labels: np.ndarray, class_weights: np.ndarray | None) -> np.ndarray:
    """The value of a pixel of each label ``(256,)``: all pixels of a class together have the value of its weight."""
    counts = np.bincount(labels.reshape(-1), minlength=256)
    value = (np.ones(256) if class_weights is None else class_weights) / np.maximum(counts, 1)
    value[IGNORE] = 0
    return value
