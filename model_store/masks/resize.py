"""Resizing of masks of class indices: each new pixel takes a class, and classes are never blended."""

from __future__ import annotations

import numpy as np
from PIL import Image


def majority_fit(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes a mask ``(h, w)`` uint8 to ``(height, width)``, as :func:`majority_resize` does; sides may differ."""
    if mask.shape[0] == mask.shape[1] and width == height:
        return majority_resize(mask, width)
    if mask.shape == (height, width):
        return mask.copy()
    labels = np.unique(mask)
    cover = [
        np.asarray(Image.fromarray((mask == label).astype(np.float32)).resize((width, height), Image.Resampling.BOX))
        for label in labels
    ]
    chosen: np.ndarray = labels[np.stack(cover).argmax(axis=0)]
    return chosen.astype(np.uint8)


def majority_resize(mask: np.ndarray, size_px: int) -> np.ndarray:
    """Resizes a square mask ``(s, s)`` uint8 to ``(size_px, size_px)``; never invents a class.

    Smaller: each new pixel takes the class that covers most of it, the lowest of several that cover the same. Larger:
    each takes the class of the nearest old one. At its own size a mask comes back as it was.
    """
    if mask.shape[0] == size_px:
        return mask.copy()
    if mask.shape[0] < size_px:
        return np.asarray(Image.fromarray(mask).resize((size_px, size_px), Image.Resampling.NEAREST))
    labels = np.unique(mask)
    cover = [
        np.asarray(Image.fromarray((mask == label).astype(np.float32)).resize((size_px, size_px), Image.Resampling.BOX))
        for label in labels
    ]
    chosen: np.ndarray = labels[np.stack(cover).argmax(axis=0)]
    return chosen.astype(np.uint8)
