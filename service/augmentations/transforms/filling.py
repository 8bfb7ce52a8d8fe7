"""Filling of holes in a mask with the nearest label."""

from __future__ import annotations

import numpy as np

from service.augmentations.transforms.base import IGNORE

_FAR = 1 << 20
"""A distance in pixels larger than any mask."""


def fill_nearest(labels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fills the pixels of ``hole`` ``(H, W)`` bool in ``(H, W)`` uint8 with the label of the nearest pixel outside it.

    The distance is Euclidean, between pixel centres, and exact; 255 is never filled in. If there is no other label,
    the mask is returned unchanged.
    """
    known = ~hole & (labels != IGNORE)
    out = labels.copy()
    if not hole.any() or not known.any():
        return out
    nearest, down = _nearest_in_column(known)
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    # the nearest pixel is no farther than the nearest one in the same column, which limits the search to either side
    reach = int(down[hole].max())
    window = np.s_[rows[0] : rows[-1] + 1, max(0, columns[0] - reach) : columns[-1] + 1 + reach]
    found = _nearest_across(np.take_along_axis(labels, nearest, axis=0)[window], down[window], hole[window])
    out[window] = np.where(hole[window], found, out[window])
    return out


def fill_ignored(labels: np.ndarray) -> np.ndarray:
    """``(H, W)`` uint8 with its 255 filled by :func:`fill_nearest`; a mask of nothing but 255 is unchanged."""
    return fill_nearest(labels, labels == IGNORE)


def _nearest_in_column(known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel, the row of the nearest known pixel in its column, and its distance in rows (or ``_FAR``)."""
    height = len(known)
    row = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(known, row, -_FAR), axis=0)
    below = np.minimum.accumulate(np.where(known, row, _FAR)[::-1], axis=0)[::-1]
    nearest = np.where(row - above <= below - row, above, below)
    return np.clip(nearest, 0, height - 1), np.minimum(np.abs(nearest - row), _FAR)


def _nearest_across(column_label: np.ndarray, down: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The label of the nearest known pixel for each hole, from each column's nearest label and its distance."""
    square = down.astype(np.int64) ** 2
    best, found = square.copy(), column_label.copy()
    for step in range(1, hole.shape[1]):
        if step * step >= best[hole].max():
            break
        for here, there in ((np.s_[:, step:], np.s_[:, :-step]), (np.s_[:, :-step], np.s_[:, step:])):
            distance = square[there] + step * step
            nearer = distance < best[here]
            np.copyto(best[here], distance, where=nearer)
            np.copyto(found[here], column_label[there], where=nearer)
    return found
