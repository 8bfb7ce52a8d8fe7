"""Dice of masks, twice the overlap over the sum of both areas: PathDiff's faithfulness scores (section 4.3).

Masks are ``(N, H, W)`` uint8 class indices; class 0 is background and not scored. Pixels of 255 in the true mask are
not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workers.evaluation.metrics import confusion_matrix


def foreground_of(masks: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """The classes but 0 that occur in the masks: of two classes, class 1."""
    return tuple(index for index in range(1, num_classes) if (masks == index).any())


def class_dices(confusion: np.ndarray) -> np.ndarray:
    """2 hits / (true + predicted) by class, ``(K, K)`` -> ``(K,)``; NaN for a class that occurs in neither."""
    hits = np.diag(confusion).astype(np.float64)
    areas = confusion.sum(axis=0) + confusion.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(areas > 0, 2.0 * hits / areas, np.nan)


def pooled_dice(true: np.ndarray, predicted: np.ndarray, num_classes: int, classes: Sequence[int]) -> float:
    """Dice over all pixels of all images, the mean over ``classes``; NaN if none of them occurs.

    An image counts by its foreground, so an empty one only by what is wrongly found in it.
    """
    return _mean(class_dices(confusion_matrix(true, predicted, num_classes))[list(classes)])


def dice_by_image(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Dice of each image by itself, ``(N,)``: the mean over the foreground classes in either of its two masks.

    1 if neither mask has any foreground, since they agree; 0 if only one has.
    """
    dices = np.empty(len(true))
    for row in range(len(true)):
        found = _mean(class_dices(confusion_matrix(true[row], predicted[row], num_classes))[1:])
        dices[row] = 1.0 if np.isnan(found) else found
    return dices


def _mean(dices: np.ndarray) -> float:
    return float(np.nanmean(dices)) if np.isfinite(dices).any() else float("nan")
