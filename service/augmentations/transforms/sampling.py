"""Sampling of labels between and beyond the pixels: the nearest pixel, with mirrored borders."""

from __future__ import annotations

import numpy as np


def mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Integer positions anywhere on an axis as positions 0 to ``length`` - 1: ... c b a | a b c ... c | c b a ..."""
    inside = np.mod(places, 2 * length)
    return np.asarray(np.where(inside < length, inside, 2 * length - 1 - inside))


def sample(labels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The labels of ``(H, W)`` at ``rows`` and ``columns``, which broadcast; pixel centres are at integers."""
    height, width = labels.shape
    return np.asarray(labels[mirrored(_nearest(rows), height), mirrored(_nearest(columns), width)])


def affine(labels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``(H, W)`` -> ``(H, W)``: the pixel at offset p (row, column) from the centre takes the label at matrix @ p.

    ``matrix`` is ``(2, 2)``.
    """
    height, width = labels.shape
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    down, across = np.arange(height)[:, None] - middle_row, np.arange(width)[None, :] - middle_column
    rows = matrix[0, 0] * down + matrix[0, 1] * across + middle_row
    columns = matrix[1, 0] * down + matrix[1, 1] * across + middle_column
    return sample(labels, rows, columns)


def _nearest(places: np.ndarray) -> np.ndarray:
    # rounded to a thousandth first, so that the last bit of a sine does not decide how a half is rounded
    return np.floor(np.round(places, 3) + 0.5).astype(np.int64)
