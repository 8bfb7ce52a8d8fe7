"""Resizing of masks of class indices and of instance maps: each new pixel takes a class, and none is ever blended."""

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


def resize_instances(instances: np.ndarray, mask: np.ndarray, resized: np.ndarray) -> np.ndarray:
    """Resizes an instance map ``(h, w)`` integers, 0 for none, as :func:`majority_resize` made ``resized`` of ``mask``.

    Each new pixel takes the instance, or none, that covers most of it among its old pixels of the new class, the lowest
    of several that cover the same. So a number never gets into another class, and an object that falls apart keeps its
    number in all its parts. Larger: each pixel takes that of the nearest old one. Returns ``(H, W)`` int32.
    """
    height, width = resized.shape
    if mask.shape == resized.shape:
        return instances.astype(np.int32)
    # along a side that grows, each new line is the nearest old one; then each old pixel belongs to one new pixel
    grows = height >= len(mask) and width >= mask.shape[1]
    how = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    keys = instances.astype(np.int64) << 8 | mask
    keys = keys[_lines(len(keys), height, how)][:, _lines(keys.shape[1], width, how)]
    values, numbers = np.unique(keys, return_inverse=True)
    rows, columns = _covered(len(keys), height), _covered(keys.shape[1], width)
    places = rows[:, None] * width + columns
    met, counts = np.unique(places.reshape(-1) * len(values) + numbers.reshape(-1), return_counts=True)
    place, value = met // len(values), values[met % len(values)]
    right = (value & 255) == resized.reshape(-1)[place]
    place, value, counts = place[right], value[right], counts[right]
    # by place, the most frequent first, the lowest of several first; of each place the first
    order = np.lexsort((value, -counts, place))
    first, at = np.unique(place[order], return_index=True)
    found = np.full(height * width, -1, dtype=np.int32)
    found[first] = value[order][at] >> 8
    for spot in np.flatnonzero(found < 0).tolist():
        # where a border lies in the middle of a pixel, Pillow may count that to either side
        row, column = divmod(spot, width)
        near = keys[_near(row, len(keys), height), _near(column, keys.shape[1], width)]
        of_class = near[(near & 255) == resized[row, column]] >> 8
        found[spot] = np.bincount(of_class).argmax() if of_class.size else 0
    return found.reshape(height, width)


def _lines(length: int, wanted: int, how: Image.Resampling) -> np.ndarray:
    """The old lines by which a side of ``length`` is brought to ``wanted``, if that is more; else all of them."""
    lines = np.arange(length)
    if wanted <= length:
        return lines
    # as Pillow resizes the mask, since it rounds halves in a way of its own
    resized = Image.fromarray(lines[None].astype(np.float32)).resize((wanted, 1), how)
    nearest: np.ndarray = np.asarray(resized)[0].astype(np.int64)
    return nearest


def _covered(length: int, wanted: int) -> np.ndarray:
    """The new line that covers the middle of each of ``length`` old ones; on a border the first, as Pillow has it."""
    return -(-(2 * np.arange(length) + 1) * wanted // (2 * length)) - 1


def _near(line: int, length: int, wanted: int) -> slice:
    """The old lines that a new one covers, and one more on either side."""
    return slice(max(0, line * length // wanted - 1), (line + 1) * length // wanted + 2)
