"""Filling of holes in a segmentation with what is nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.augmentations.transforms.base import IGNORE, Segmentation

_FAR = 1 << 20
"""A distance in pixels larger than any mask."""


def fill_nearest(segmentation: Segmentation, hole: np.ndarray, *, spared: np.ndarray | None = None) -> Segmentation:
    """Fills the pixels of ``hole`` ``(H, W)`` bool with label and instance of the nearest pixel outside it.

    The distance is Euclidean, between pixel centres, and exact; 255 is never filled in, nor are pixels where ``spared``
    ``(H, W)`` is not 0, if there are others. If there is no other label, the segmentation is returned unchanged.
    """
    known = ~hole & (segmentation.labels != IGNORE)
    if spared is not None and (free := known & (spared == 0)).any():
        known = free
    if not hole.any() or not known.any():
        return segmentation.copy()
    nearest, down = _nearest_in_column(known)
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    # the nearest pixel is no farther than the nearest one in the same column, which limits the search to either side
    reach = int(down[hole].max())
    window = np.s_[rows[0] : rows[-1] + 1, max(0, columns[0] - reach) : columns[-1] + 1 + reach]
    source = np.arange(hole.size).reshape(hole.shape)
    found = _nearest_across(np.take_along_axis(source, nearest, axis=0)[window], down[window], hole[window])
    source[window] = np.where(hole[window], found, source[window])
    return segmentation.each(lambda values: values.reshape(-1)[source])


def fill_ignored(segmentation: Segmentation) -> Segmentation:
    """``(H, W)`` with its 255 filled by :func:`fill_nearest`; a mask of nothing but 255 is unchanged."""
    return fill_nearest(segmentation, segmentation.labels == IGNORE)


def spared_pixels(segmentation: Segmentation, spared: Sequence[int]) -> np.ndarray | None:
    """The pixels ``(H, W)`` that do not grow into holes: those of instances and of ``spared`` labels; None for none."""
    if not spared:
        return segmentation.instances
    pixels = np.isin(segmentation.labels, np.asarray(spared))
    return pixels if segmentation.instances is None else pixels | (segmentation.instances > 0)


def _nearest_in_column(known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel, the row of the nearest known pixel in its column, and its distance in rows (or ``_FAR``)."""
    height = len(known)
    row = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(known, row, -_FAR), axis=0)
    below = np.minimum.accumulate(np.where(known, row, _FAR)[::-1], axis=0)[::-1]
    nearest = np.where(row - above <= below - row, above, below)
    return np.clip(nearest, 0, height - 1), np.minimum(np.abs(nearest - row), _FAR)


def _nearest_across(column_pixel: np.ndarray, down: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The nearest known pixel for each pixel of a hole, from the nearest one of each column and its distance."""
    square = down.astype(np.int64) ** 2
    best, found = square.copy(), column_pixel.copy()
    for step in range(1, hole.shape[1]):
        if step * step >= best[hole].max():
            break
        for here, there in ((np.s_[:, step:], np.s_[:, :-step]), (np.s_[:, :-step], np.s_[:, step:])):
            distance = square[there] + step * step
            nearer = distance < best[here]
            np.copyto(best[here], distance, where=nearer)
            np.copyto(found[here], column_pixel[there], where=nearer)
    return found
