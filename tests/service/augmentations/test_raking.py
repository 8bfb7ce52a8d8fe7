"""Raking: feasible targets are met exactly, others as nearly as possible, with the least change of weights."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from service.augmentations.choosing import scales
from service.augmentations.raking import effective_number, rake


def simplex(parts: int, steps: int) -> np.ndarray:
    """All weights of ``parts`` masks in steps of 1 / ``steps``."""
    rows = [row for row in product(range(steps + 1), repeat=parts - 1) if sum(row) <= steps]
    return np.array([[*row, steps - sum(row)] for row in rows]) / steps


@pytest.mark.parametrize("max_weight", [1.0, 0.5])
def test_no_mix_comes_nearer(max_weight: float) -> None:
    rng = np.random.default_rng(0)
    grid = simplex(4, 40)
    grid = grid[grid.max(axis=1) <= max_weight + 1e-9]
    missed = 0
    for _ in range(60):
        features = rng.dirichlet(np.full(3, 0.6), size=4)
        target = rng.dirichlet(np.full(3, 1.0))
        scale = scales(target)
        weights = rake(features, target, scale, max_weight=max_weight)
        assert weights.sum() == pytest.approx(1)
        assert weights.min() >= 0
        assert weights.max() <= max_weight + 1e-6
        reached = (((weights @ features - target) / scale) ** 2).sum()
        brute = (((grid @ features - target) / scale) ** 2).sum(axis=1).min()
        assert reached <= brute + 1e-4
        missed += brute > 0.05
    assert missed > 10  # not only targets that are easily met


def test_weights_that_meet_a_target_are_the_least_changed() -> None:
    rng = np.random.default_rng(1)
    features = rng.dirichlet(np.full(4, 0.7), size=30)
    prior = rng.dirichlet(np.full(30, 2.0))
    target = rng.dirichlet(np.full(30, 0.8)) @ features
    weights = rake(features, target, scales(target), prior)
    assert weights @ features == pytest.approx(target, abs=1e-4)
    divergence = float((weights * np.log(weights / prior)).sum())
    # any other weights with the same sum and mean differ by a vector of the null space
    _, _, directions = np.linalg.svd(np.vstack([features.T, np.ones(30)]))
    for direction in directions[4:]:
        for step in (1e-3, -1e-3):
            other = weights + step * direction
            if other.min() > 0:
                assert float((other * np.log(other / prior)).sum()) > divergence - 1e-6


def test_the_closed_form_of_two_kinds() -> None:
    features = np.array([[1.0, 0.0]] * 7 + [[0.0, 1.0]] * 3)
    weights = rake(features, np.array([0.2, 0.8]), np.array([0.2, 0.8]))
    assert weights == pytest.approx([0.2 / 7] * 7 + [0.8 / 3] * 3, rel=1e-4)
    assert rake(features, np.array([0.7, 0.3]), np.array([0.7, 0.3])) == pytest.approx([0.1] * 10, rel=1e-6)


def test_no_weight_is_above_the_maximum() -> None:
    features = np.array([[1.0]] * 2 + [[0.0]] * 8)
    capped = rake(features, np.array([0.9]), np.array([0.9]), max_weight=0.2)
    assert capped == pytest.approx([0.2, 0.2] + [0.6 / 8] * 8, rel=1e-4)
    even = rake(features, np.array([0.9]), np.array([0.9]), max_weight=0.01)  # would leave weights short of 1
    assert even == pytest.approx([0.1] * 10)


def test_what_has_no_prior_gets_no_weight() -> None:
    weights = rake(np.eye(3), np.array([0.2, 0.3, 0.5]), np.ones(3), np.array([1.0, 0.0, 1.0]))
    assert weights[1] == 0
    assert weights.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="no mask"):
        rake(np.eye(3), np.ones(3) / 3, np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match="no mask"):
        rake(np.zeros((0, 3)), np.ones(3) / 3, np.ones(3))


def test_more_masks_than_the_slope_is_solved_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    features = rng.dirichlet(np.full(5, 0.5), size=3000)
    target = np.array([0.1, 0.15, 0.2, 0.25, 0.3])
    whole = rake(features, target, scales(target))
    monkeypatch.setattr("service.augmentations.raking._MAX_SOLVED_MASKS", 500)
    assert rake(features, target, scales(target)) == pytest.approx(whole, rel=1e-3)


def test_the_effective_number() -> None:
    assert effective_number(np.full(8, 1 / 8)) == pytest.approx(8)
    assert effective_number(np.array([1.0, 0.0])) == pytest.approx(1)
