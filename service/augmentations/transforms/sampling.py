"""Sampling of segmentations between and beyond the pixels: the nearest pixel, with mirrored borders."""

from __future__ import annotations

import numpy as np

from service.augmentations.transforms.base import Segmentation
from service.datasets.components import join_groups


def mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Integer positions anywhere on an axis as positions 0 to ``length`` - 1: ... c b a | a b c ... c | c b a ..."""
    inside = np.mod(places, 2 * length)
    return np.asarray(np.where(inside < length, inside, 2 * length - 1 - inside))


def sample(segmentation: Segmentation, rows: np.ndarray, columns: np.ndarray) -> Segmentation:
    """``(H, W)`` at ``rows`` and ``columns``, which broadcast; pixel centres are at integers.

    An instance keeps its number, even if the sampling cuts it in parts. Its mirror image beyond the border is a part of
    it where they touch, and a new instance elsewhere.
    """
    height, width = segmentation.shape
    rows, columns = _nearest(rows), _nearest(columns)
    sampled = segmentation.each(lambda values: values[mirrored(rows, height), mirrored(columns, width)])
    if sampled.instances is not None:
        _number_copies(sampled.instances, rows // height, columns // width)
    return sampled


def affine(segmentation: Segmentation, matrix: np.ndarray) -> Segmentation:
    """``(H, W)`` -> ``(H, W)``: the pixel at offset p (row, column) from the centre takes what is at matrix @ p.

    ``matrix`` is ``(2, 2)``.
    """
    height, width = segmentation.shape
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    down, across = np.arange(height)[:, None] - middle_row, np.arange(width)[None, :] - middle_column
    rows = matrix[0, 0] * down + matrix[0, 1] * across + middle_row
    columns = matrix[1, 0] * down + matrix[1, 1] * across + middle_column
    return sample(segmentation, rows, columns)


def _number_copies(instances: np.ndarray, down: np.ndarray, across: np.ndarray) -> None:
    """Gives mirror images that do not touch their original numbers of their own, beyond the highest.

    Each pixel of ``instances`` ``(H, W)`` was taken from the image number ``down``, ``across`` (broadcast), of which
    0, 0 is the original.
    """
    if not (down.any() or across.any()):
        return
    place = _whole(down) * (int(_whole(across).max()) + 1) + _whole(across)  # 0 for the original
    images = int(place.max()) + 1
    copies, node = np.unique(instances.astype(np.int64) * images + place, return_inverse=True)
    node, owner = node.reshape(instances.shape), copies // images
    left, right = [], []
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        touching = (instances[one] == instances[other]) & (node[one] != node[other])
        left.append(node[one][touching])
        right.append(node[other][touching])
    root = join_groups(len(copies), np.concatenate(left), np.concatenate(right))
    is_root = root == np.arange(len(root))
    first = np.append(True, owner[1:] != owner[:-1])  # the lowest node of an instance keeps its number
    new = is_root & ~first & (owner > 0)
    numbers = np.where(new, owner.max() + np.cumsum(new), owner)[root]
    instances[:] = numbers[node]


def _whole(numbers: np.ndarray) -> np.ndarray:
    """Integers as 0, 1, 2, ...: 0 stays, and positive and negative ones alternate."""
    return np.asarray(np.where(numbers < 0, -2 * numbers - 1, 2 * numbers))


def _nearest(places: np.ndarray) -> np.ndarray:
    # rounded to a thousandth first, so that the last bit of a sine does not decide how a half is rounded
    return np.floor(np.round(places, 3) + 0.5).astype(np.int64)
