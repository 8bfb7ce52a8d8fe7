"""Resizing of masks of class indices: each new pixel takes a class, and classes are never blended."""

from __future__ import annotations

import numpy as np
from PIL import Image


def majority_resize(mask: np.ndarray, size_px: int | tuple[int, int]) -> np.ndarray:
    """Resizes a mask ``(h, w)`` uint8 to ``size_px``, a side or (width, height); never invents a class.

    Smaller: each new pixel takes the class that covers most of it, the lowest of several that cover the same. Larger:
    each takes the class of the nearest old one. At its own size a mask comes back as it was.
    """
    size = (size_px, size_px) if isinstance(size_px, int) else size_px
    shown = mask.shape[1], mask.shape[0]
    if shown == size:
        return mask.copy()
    if shown[0] <= size[0] and shown[1] <= size[1]:
        return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    labels = np.unique(mask)
    cover = [
        np.asarray(Image.fromarray((mask == label).astype(np.float32)).resize(size, Image.Resampling.BOX))
        for label in labels
    ]
    chosen: np.ndarray = labels[np.stack(cover).argmax(axis=0)]
    return chosen.astype(np.uint8)
