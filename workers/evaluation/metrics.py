"""Metrics of twins, as pure functions: arrays in, numbers out.

Masks are ``(N, H, W)`` uint8 class indices, 255 where no class is confident. Which classes are in a mask, ``(N, K)``
bool, is decided by :func:`workers.data.pixels.present_classes`: those that hold at least 0.5 % of all its
pixels, 255 counted too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model_store.card import IGNORE_INDEX


def positive_predicted_value(queried: np.ndarray, found: np.ndarray) -> float:
    """The share of all queried classes that were found: ``(N, K)`` bool each -> [0, 1]; NaN when none was queried.

    This is CoSimGen's PPV, over all samples at once. A noisy mask holds every class and scores 1, so it is never
    reported without :func:`converse_predicted_value`.
    """
    return _ratio((queried & found).sum(), queried.sum())


def converse_predicted_value(queried: np.ndarray, found: np.ndarray, countable: np.ndarray) -> float:
    """The share of all found classes that were queried, among the ``(K,)`` bool ``countable`` ones; or NaN."""
    found = found & countable[None]
    return _ratio((queried & found).sum(), found.sum())


def confident_share(masks: np.ndarray) -> float:
    """The share of pixels that are of some class, not 255."""
    return float(np.mean(masks != IGNORE_INDEX))


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by true class (rows) and predicted class (columns), ``(K, K)`` int64.

    Pixels whose true class is not below K (255 above all) are left out. Raises ValueError when the shapes differ or a
    counted pixel is predicted as no class.
    """
    if true.shape != predicted.shape:
        raise ValueError(f"masks of shape {true.shape} and predictions of shape {predicted.shape} cannot be compared")
    counted = true < num_classes
    rows, columns = true[counted].astype(np.int64), predicted[counted].astype(np.int64)
    if columns.size and columns.max() >= num_classes:
        raise ValueError(f"a prediction of class {columns.max()} lies outside the {num_classes} classes")
    counts: np.ndarray = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def class_ious(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union by class, ``(K, K)`` -> ``(K,)``; NaN for a class that is nowhere, true or predicted."""
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        ious: np.ndarray = np.where(union > 0, hits / union, np.nan)
    return ious


def mean_iou(confusion: np.ndarray, classes: Sequence[int] | None = None) -> float:
    """The mean IoU over ``classes`` (all, when None), those that are nowhere left out; NaN when all are."""
    ious = class_ious(confusion)
    if classes is not None:
        ious = ious[list(classes)]
    return float(np.nanmean(ious)) if np.isfinite(ious).any() else float("nan")


def ghost_share(masks: np.ndarray, allowed: np.ndarray) -> float:
    """The share of pixels whose class is none of those the sample may hold: masks, and ``(N, K)`` bool ``allowed``."""
    table = np.concatenate([allowed, np.ones((len(allowed), 256 - allowed.shape[1]), dtype=bool)], axis=1)
    flat = masks.reshape(len(masks), -1)
    return float(np.mean(~np.take_along_axis(table, flat.astype(np.int64), axis=1)))


def nearest_distances(made: np.ndarray, others: np.ndarray, *, same: bool = False) -> np.ndarray:
    """The root-mean-square distance of each row of ``made`` ``(N, D)`` to its nearest row of ``others`` ``(M, D)``.

    Returns ``(N,)``. Against the training images it shows copying: a memorised twin is far nearer than real test images
    are. With ``same`` the two arrays are one and each row's own match is left out, which shows how diverse they are.
    """
    a, b = made.astype(np.float64), others.astype(np.float64)
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2.0 * a @ b.T
    if same:
        np.fill_diagonal(squared, np.inf)
    distances: np.ndarray = np.sqrt(np.maximum(squared.min(axis=1), 0.0) / a.shape[1])
    return distances


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance of two Gaussians fitted to features ``(N, D)`` and ``(M, D)``; at least 2 rows each.

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)). It is called FID only on Inception's features: name the feature
    space beside it. With fewer rows than features it is biased upwards, so only equal row counts compare.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a Frechet distance needs at least 2 rows on each side, not {len(a)} and {len(b)}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    difference = a.mean(0) - b.mean(0)
    cov_a, cov_b = np.cov(a, rowvar=False, ddof=1), np.cov(b, rowvar=False, ddof=1)
    cov_a, cov_b = np.atleast_2d(cov_a), np.atleast_2d(cov_b)
    # tr (C_a C_b)^(1/2) = sum of the square roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2), which is symmetric
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ cov_b @ root)
    cross = np.sqrt(np.maximum(mixed, 0.0)).sum()
    return float(max(difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross, 0.0))


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole else float("nan")
