from __future__ import annotations

import numpy as np
import pytest

from workers.data.image_quality import error_rate, psnr
from workers.evaluation.metrics import (
    class_ious,
    confident_share,
    confusion_matrix,
    converse_predicted_value,
    frechet_distance,
    mean_iou,
    nearest_distances,
    positive_predicted_value,
)


def test_ppv_and_its_converse_by_hand() -> None:
    queried = np.array([[0, 1, 1, 0], [0, 1, 0, 1]], dtype=bool)
    found = np.array([[1, 1, 0, 1], [0, 1, 1, 1]], dtype=bool)
    # queried: 4, of them found: 3.  found and countable (class 0 is not): 5, of them queried: 3
    assert positive_predicted_value(queried, found) == 3 / 4
    assert converse_predicted_value(queried, found, np.array([False, True, True, True])) == 3 / 5
    assert converse_predicted_value(queried, found, np.ones(4, dtype=bool)) == 3 / 6


def test_a_mask_of_every_class_scores_one_by_ppv_and_is_given_away_by_the_converse() -> None:
    queried = np.eye(5, dtype=bool)
    everything = np.ones((5, 5), dtype=bool)
    assert positive_predicted_value(queried, everything) == 1.0
    assert converse_predicted_value(queried, everything, np.ones(5, dtype=bool)) == 0.2


def test_shares_of_nothing_are_not_a_number() -> None:
    nothing = np.zeros((2, 3), dtype=bool)
    assert np.isnan(positive_predicted_value(nothing, ~nothing))
    assert np.isnan(converse_predicted_value(~nothing, nothing, np.ones(3, dtype=bool)))


def test_confusion_and_iou_by_hand() -> None:
    true = np.array([[0, 0, 1], [1, 2, 255]], dtype=np.uint8)
    predicted = np.array([[0, 1, 1], [1, 2, 0]], dtype=np.uint8)
    confusion = confusion_matrix(true, predicted, 4)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    ious = class_ious(confusion)
    assert ious[:3].tolist() == [1 / 2, 2 / 3, 1.0]
    assert np.isnan(ious[3])
    assert mean_iou(confusion) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert mean_iou(confusion, (0, 1, 3)) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert np.isnan(mean_iou(confusion, (3,)))


def test_confusion_agrees_with_counting_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 5, (3, 9, 9)).astype(np.uint8), rng.integers(0, 5, (3, 9, 9)).astype(np.uint8)
    true[0, 0] = 255
    confusion = confusion_matrix(true, predicted, 5)
    for i in range(5):
        for j in range(5):
            assert confusion[i, j] == int(((true == i) & (predicted == j)).sum())


def test_confusion_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 2\).*\(2, 2\)"):
        confusion_matrix(np.zeros((1, 2, 2), np.uint8), np.zeros((2, 2), np.uint8), 2)
    with pytest.raises(ValueError, match="class 255 lies outside the 2"):
        confusion_matrix(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8), 2)


def test_confident_share_error_rate_and_psnr_by_hand() -> None:
    mask = np.array([[[0, 1], [255, 1]]], dtype=np.uint8)
    assert confident_share(mask) == 0.75
    # 3 pixels have a true class; one of them is reported wrong
    assert error_rate(mask, np.array([[[0, 0], [7, 1]]], dtype=np.uint8)) == 1 / 3
    assert psnr(np.zeros(4), np.full(4, 25.5), 255.0) == pytest.approx(20.0)
    assert psnr(mask, mask, 255.0) == float("inf")


def test_nearest_distances_find_a_copy_and_leave_out_oneself() -> None:
    train = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    made = np.array([[1.0, 1.0], [0.0, 1.0]])
    # root of the mean over the two values: (0, 1) is 1 away from three of them in one value of two
    assert nearest_distances(made, train).tolist() == pytest.approx([0.0, np.sqrt(0.5)])
    assert nearest_distances(train, train, same=True).tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_frechet_distance_of_known_gaussians() -> None:
    # features with exact means and diagonal covariances: |dmu|^2 + sum (sigma_a - sigma_b)^2
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3 / 4)
    a, b = corners * [1.0, 2.0], corners * [3.0, 5.0] + [1.0, -2.0]
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + (3 - 1) ** 2 + (5 - 2) ** 2)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)


def test_frechet_distance_with_full_covariances_matches_the_matrix_square_root() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4)) + 0.5
    product = np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)
    trace_of_root = np.sqrt(np.linalg.eigvals(product).real).sum()
    difference = a.mean(0) - b.mean(0)
    expected = (
        difference @ difference
        + np.trace(np.cov(a, rowvar=False))
        + np.trace(np.cov(b, rowvar=False))
        - 2 * trace_of_root
    )
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    with pytest.raises(ValueError, match="at least 2 rows"):
        frechet_distance(a[:1], b)
