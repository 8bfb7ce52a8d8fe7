"""Dice by hand: pooled and by image, of two classes and of several, with empty masks and pixels of no known class."""

from __future__ import annotations

import numpy as np
import pytest

from workers.evaluation.dice import class_dices, dice_by_image, foreground_of, pooled_dice
from workers.evaluation.metrics import confusion_matrix


def masks(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)[:, None]


def test_dice_of_one_class_is_twice_the_overlap_over_the_sum_of_both_areas() -> None:
    true, found = masks([0, 1, 1, 1]), masks([0, 0, 1, 1])
    # 2 in common, of 3 and 2
    assert pooled_dice(true, found, 2, (1,)) == 4 / 5
    assert pooled_dice(true, true, 2, (1,)) == 1.0
    assert pooled_dice(true, 1 - true, 2, (1,)) == 0.0


def test_pooled_dice_counts_pixels_and_the_mean_of_images_counts_images() -> None:
    true, found = masks([1, 1, 1, 1], [1, 0, 0, 0]), masks([1, 1, 1, 1], [0, 1, 0, 0])
    # 4 in common, of 5 and 5; by image 1 and 0
    assert pooled_dice(true, found, 2, (1,)) == 8 / 10
    assert dice_by_image(true, found, 2).tolist() == [1.0, 0.0]


def test_an_empty_mask_counts_by_what_is_wrongly_found_and_two_empty_ones_agree() -> None:
    true, found = masks([0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]), masks([0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0])
    assert dice_by_image(true, found, 2).tolist() == [1.0, 0.0, 1.0]
    # 2 in common, of 2 and 3
    assert pooled_dice(true, found, 2, (1,)) == 4 / 5
    nothing = np.zeros_like(true)
    assert foreground_of(nothing, 2) == ()
    assert np.isnan(pooled_dice(nothing, nothing, 2, (1,)))


def test_of_several_classes_it_is_the_mean_over_those_that_occur_and_never_the_background() -> None:
    true, found = masks([0, 0, 1, 1, 2, 2]), masks([0, 1, 1, 1, 2, 3])
    assert foreground_of(true, 5) == (1, 2)
    dices = class_dices(confusion_matrix(true, found, 5))
    assert dices[:4].tolist() == [2 / 3, 4 / 5, 2 / 3, 0.0]
    assert np.isnan(dices[4])
    assert pooled_dice(true, found, 5, (1, 2)) == pytest.approx((4 / 5 + 2 / 3) / 2)
    # by image, a class that was found where none is counts too
    assert dice_by_image(true, found, 5).tolist() == pytest.approx([(4 / 5 + 2 / 3 + 0) / 3])


def test_pixels_of_no_known_class_are_not_counted() -> None:
    true, found = masks([1, 255, 255, 0]), masks([1, 1, 0, 0])
    assert pooled_dice(true, found, 2, (1,)) == 1.0
    assert dice_by_image(true, found, 2).tolist() == [1.0]
